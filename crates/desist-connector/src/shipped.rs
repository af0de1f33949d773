//! The connectors that come with desist.

/// A shipped connector.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// Its id, which is the name of its file.
    pub id: &'static str,
    /// Whether the calls are known to be those of the destination: the webhook's message, tables and files are desist's own, and Campaign's
    /// connector is tested against the Campaign API of desist. The others were written from documentation alone.
    pub verified: bool,
    /// The manifest.
    pub text: &'static str,
}

macro_rules! shipped {
    ($($id:literal $verified:literal $path:literal;)*) => {
        &[$(Shipped { id: $id, verified: $verified, text: include_str!(concat!("../../../connectors/", $path, ".toml")) }),*]
    };
}

/// Every shipped connector, by id.
pub const SHIPPED: &[Shipped] = shipped! {
    "adobe-campaign-standard" true "adobe-campaign-standard";
    "adobe-privacy-service" false "unverified/adobe-privacy-service";
    "file-drop" true "file-drop";
    "google-data-manager" false "unverified/google-data-manager";
    "liveramp" false "unverified/liveramp";
    "manual" true "manual";
    "marketo" false "unverified/marketo";
    "meta-custom-audience" false "unverified/meta-custom-audience";
    "s3-drop" true "s3-drop";
    "salesforce" false "unverified/salesforce";
    "sftp-drop" true "sftp-drop";
    "sql-table" true "sql-table";
    "the-trade-desk" false "unverified/the-trade-desk";
    "webhook" true "webhook";
};
