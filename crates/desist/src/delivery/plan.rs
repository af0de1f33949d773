//! What follows from the `[[destinations]]` tables: how each lane runs, and what its transport is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use desist_connector::declared::{LimitScope, Transport};
use desist_connector::{Instance, Manifest, Secret};
use desist_core::identifier::Kind;
use desist_core::lane::{Config as Lane, Jobs, Level, Patrol, PatrolKind, Rate};
use desist_core::limits::ATTEMPTS_MAX;
use desist_engine::delivery::Class;
use sha2::{Digest as _, Sha256};

use crate::config::{Config, Destination, opt_outs};

/// How long a lease lasts from its last renewal; a call's time-out is below half of it.
const LEASE_MS: u64 = 60_000;

/// A destination, ready for a transport to be made for it.
pub struct Planned {
    /// Its id in the configuration.
    pub id: String,
    /// Its connector.
    pub manifest: Manifest,
    /// The connector with its settings, or what is missing; that text shows no secret.
    pub instance: Result<Instance, String>,
    /// What the recipient is under the law.
    pub class: Class,
    /// The names of the purposes that it is told of.
    pub purposes: Vec<String>,
    /// How its lane runs.
    pub lane: Lane,
    /// The level at which it counts as enforced.
    pub required: Level,
    /// The highest level that its connector can reach.
    pub ceiling: Level,
    /// What it was told does not last: it counts only while it is told again within so many milliseconds.
    pub resend_ms: Option<u64>,
    /// Digest of all that was configured, of its manifest and of its secrets.
    pub digest: [u8; 32],
    /// The kinds of identifiers that it takes.
    pub kinds: Vec<Kind>,
    /// Whether it may be on a private network, and on plain HTTP on this machine.
    pub allow_private: bool,
    /// Whether each call is only checked there.
    pub dry_run: bool,
    /// Who tells it by hand.
    pub owner: Option<String>,
    /// What that person does.
    pub task: Option<String>,
    /// Whether the connector's calls are known to be those of the destination.
    pub verified: bool,
}

impl fmt::Debug for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Planned({}, {}, …)", self.id, self.manifest.id())
    }
}

/// Every destination of the configuration, in its order. Reads their secrets.
pub fn plan(config: &Config) -> Vec<Planned> {
    // A table whose manifest was not read does not get here: `Config::load` does not let it pass.
    let bound: Vec<_> = config.destinations.iter().filter_map(Bound::of).collect();
    let sharing = |one: &Bound| bound.iter().filter(|other| one.shares.is_some() && other.shares == one.shares).count().max(1);
    let sharing: Vec<_> = bound.iter().map(|one| u32::try_from(sharing(one)).unwrap_or(u32::MAX)).collect();
    bound.into_iter().zip(sharing).map(|(one, sharing)| planned(one, sharing)).collect()
}

/// A destination with its secrets.
struct Bound<'c> {
    destination: &'c Destination,
    manifest: &'c Manifest,
    instance: Result<(Instance, BTreeMap<String, Secret>), String>,
    /// Connector and credentials, where all with the same have one rate together.
    shares: Option<[u8; 32]>,
}

impl<'c> Bound<'c> {
    fn of(destination: &'c Destination) -> Option<Self> {
        let manifest = destination.manifest()?;
        let instance = destination.instance(manifest);
        let shares = match &instance {
            Ok((_, secrets)) if manifest.declared().limits.scope == LimitScope::Credentials => {
                let mut digest = Sha256::new_with_prefix(manifest.id());
                for (name, secret) in secrets {
                    digest.update(Sha256::digest([name.as_bytes(), secret.expose().as_bytes()].join(&0)));
                }
                Some(digest.finalize().into())
            }
            _ => None,
        };
        Some(Self { destination, manifest, instance, shares })
    }
}

/// The kinds of identifiers that any destination takes. Reads no secret.
pub fn kinds(config: &Config) -> BTreeSet<Kind> {
    config.destinations.iter().filter_map(Destination::manifest).flat_map(|manifest| manifest.kinds()).collect()
}

fn planned(Bound { destination, manifest, instance: bound, .. }: Bound<'_>, sharing: u32) -> Planned {
    let digest = digest(destination, manifest, sharing, bound.as_ref().map(|(_, secrets)| secrets).map_err(String::as_str));
    let purposes = destination.purposes_of(manifest);
    let ceiling = destination.ceiling(manifest);
    Planned {
        id: destination.id.clone(),
        manifest: Manifest::clone(manifest),
        instance: bound.map(|(instance, _)| instance),
        class: destination.class,
        lane: lane(destination, manifest, &purposes, ceiling, sharing),
        purposes,
        required: destination.required_of(manifest),
        ceiling,
        resend_ms: destination.fades(manifest).then(|| destination.resend_every.millis()),
        digest,
        kinds: manifest.kinds().collect(),
        allow_private: destination.allow_private,
        dry_run: destination.dry_run,
        owner: destination.owner.clone(),
        task: destination.task.clone(),
        verified: destination.is_verified(),
    }
}

fn lane(destination: &Destination, manifest: &Manifest, purposes: &[String], floor: Level, sharing: u32) -> Lane {
    let pace = manifest.pace();
    let declared = manifest.declared();
    let seed = number(&Sha256::digest(&destination.id));
    let polls = || opt_outs(manifest, purposes).filter_map(|op| op.poll);
    let jobs = match (polls().map(|(every, _)| every).min(), polls().map(|(_, give_up)| give_up).max()) {
        (Some(every), Some(give_up)) => Jobs { every_ms: every * 1000, give_up_ms: give_up * 1000 },
        _ => Lane::plain(seed).jobs,
    };
    let transport = declared.connector.transport;
    let is_readable = manifest.verify_unit().is_some() || transport == Transport::Sql;
    let mut patrols = Vec::new();
    if is_readable {
        patrols.push(Patrol { kind: PatrolKind::Read, period_ms: destination.patrol.millis() });
    }
    // Nobody is made to do the same work again by a clock.
    if transport != Transport::Manual && (!is_readable || destination.fades(manifest)) {
        let every_ms = destination.resend_every.millis();
        // What fades is said again before it counts as faded, also if a round takes a little longer.
        let period_ms = if destination.fades(manifest) { every_ms / 5 * 4 } else { every_ms };
        patrols.push(Patrol { kind: PatrolKind::Send, period_ms });
    }
    Lane {
        generation: generation(destination, manifest, purposes, floor),
        floor,
        batch_items: pace.batch_items,
        linger_ms: destination.linger.as_ref().map_or(pace.linger_seconds * 1000, crate::config::Period::millis),
        concurrency: destination.concurrency.unwrap_or(pace.concurrency) as usize,
        rates: errands(destination.rates_of(manifest, sharing), manifest, purposes, pace.batch_items),
        request_timeout_ms: destination.timeout.millis(),
        lease_ms: LEASE_MS,
        attempts_max: destination.attempts.unwrap_or(ATTEMPTS_MAX),
        probe: declared.probe.is_some(),
        jobs,
        patrols,
        ..Lane::plain(seed)
    }
}

/// A rate is about calls, and a lane counts errands, each of which can be several: one for each op, and for each person a look-up and a
/// read-back. One errand is always let through.
fn errands(rates: Vec<Rate>, manifest: &Manifest, purposes: &[String], batch_items: usize) -> Vec<Rate> {
    let of_a_person = usize::from(manifest.has_lookup()) + usize::from(manifest.verify_unit().is_some());
    let calls = opt_outs(manifest, purposes).count().max(1) + of_a_person * batch_items;
    let calls = u32::try_from(calls).unwrap_or(u32::MAX);
    rates.into_iter().map(|rate| Rate { calls: (rate.calls / calls).max(1), ..rate }).collect()
}

/// The first eight bytes of a digest as a number.
fn number(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What decides which targets need a message, which can be reached, where it goes, and what it means that one arrived. Of secrets the place
/// counts, so that one that is renewed does not tell everybody again.
fn generation(destination: &Destination, manifest: &Manifest, purposes: &[String], floor: Level) -> u64 {
    let declared = manifest.declared();
    let ops: Vec<_> = manifest.ops().map(|op| (op.on, op.purposes)).collect();
    let text = serde_json::to_vec(&(
        manifest.id(),
        declared.connector.version,
        &declared.ids,
        ops,
        purposes,
        &destination.settings,
        destination.dry_run,
        floor,
    ))
    .unwrap_or_default();
    number(&Sha256::digest(text))
}

/// Covers what is missing too: once it is there, this is another destination.
fn digest(destination: &Destination, manifest: &Manifest, sharing: u32, secrets: Result<&BTreeMap<String, Secret>, &str>) -> [u8; 32] {
    let secrets: Result<BTreeMap<_, [u8; 32]>, _> =
        secrets.map(|secrets| secrets.iter().map(|(name, secret)| (name, Sha256::digest(secret.expose()).into())).collect());
    let text = serde_json::to_vec(&(destination, manifest.declared(), destination.is_verified(), sharing, secrets)).unwrap_or_default();
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests {
    use desist_core::lane::Rate;

    use super::*;

    #[test]
    fn who_has_the_same_credentials_shares_the_rate_of_the_manifest() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (one, same, other) = (file("one", "s3cret"), file("same", "s3cret"), file("other", "another"));
        let mut text = String::new();
        let missing = directory.path().join("missing").display().to_string();
        for (id, secret, more) in
            [("a", &one, ""), ("b", &same, ""), ("c", &other, ""), ("d", &one, "rate = [\"3/20s\"]\n"), ("e", &missing, "")]
        {
            let table = format!(
                "[[destinations]]\nid = \"{id}\"\nconnector = \"marketo\"\nclass = \"third_party\"\n{more}[destinations.settings]\n\
                 instance = \"123-abc-456\"\nclient_id = \"x\"\nclient_secret = {{ file = {secret:?} }}\n"
            );
            text.push_str(&table);
        }
        let planned = plan(&Config::parse(&text, "desist.toml").unwrap());
        let of = |at: usize| planned[at].lane.rates.iter().map(|rate| rate.calls).collect::<Vec<_>>();
        // Three share what one alone has; an operator's own rate is one destination's.
        assert_eq!(
            [of(0), of(1), of(2), of(3), of(4)],
            [vec![20, 6_666], vec![20, 6_666], vec![60, 20_000], vec![3, 6_666], vec![60, 20_000]]
        );
    }

    /// A configuration with one destination; `secret` is the path of its secret.
    fn config(connector: &str, more: &str, settings: &str) -> Config {
        let text = format!(
            "[[destinations]]\nid = \"crm\"\nconnector = \"{connector}\"\nclass = \"third_party\"\n{more}[destinations.settings]\n{settings}"
        );
        Config::parse(&text, "desist.toml").unwrap()
    }

    fn webhook(more: &str, secret: &std::path::Path) -> Planned {
        let settings = format!("host = \"hooks.example\"\nsecret = {{ file = {:?} }}\n", secret.display().to_string());
        plan(&config("webhook", more, &settings)).pop().unwrap()
    }

    #[test]
    fn a_missing_secret_stops_its_destination_alone_and_changes_its_digest() {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        let without = webhook("", &secret);
        let missing = without.instance.as_ref().map(|_| ()).unwrap_err();
        assert!(missing.starts_with("settings.secret: the file ") && missing.contains("cannot be read"), "{missing}");
        std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let with = webhook("", &secret);
        assert!(with.instance.is_ok());
        let again = webhook("", &secret);
        std::fs::write(&secret, "whsec_NfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let rotated = webhook("", &secret);
        assert_eq!(with.digest, again.digest);
        let digests: BTreeSet<_> = [&without, &with, &rotated].map(|planned| planned.digest).into();
        assert_eq!(digests.len(), 3, "the secret counts");
        let lanes: BTreeSet<_> = [&without, &with, &rotated].map(|planned| (planned.lane.seed, planned.lane.generation)).into();
        assert_eq!(lanes.len(), 1, "what people need is the same");
    }

    #[test]
    fn a_lane_follows_from_manifest_and_table() {
        let none = std::path::Path::new("/none");
        let plain = webhook("", none);
        plain.lane.check().unwrap();
        assert_eq!((plain.ceiling, plain.required, plain.verified, plain.resend_ms), (Level::Accepted, Level::Accepted, true, None));
        assert_eq!((plain.lane.concurrency, plain.lane.request_timeout_ms, plain.lane.attempts_max), (4, 10_000, 16));
        assert_eq!(plain.lane.patrols, [Patrol { kind: PatrolKind::Send, period_ms: 30 * 86_400_000 }]);
        assert_eq!(plain.purposes, ["sale", "sharing", "targeted_advertising"]);
        let more = "purposes = [\"admt\"]\nrate = [\"5/1s\", \"3/1s\"]\nconcurrency = 2\nlinger = \"2s\"\nattempts = 3\nresend_every = \"1d\"\ntimeout = \"29s\"\n";
        let tuned = webhook(more, none);
        tuned.lane.check().unwrap();
        assert_eq!(tuned.lane.rates, [Rate { calls: 3, window_ms: 1000 }]);
        assert_eq!((tuned.lane.concurrency, tuned.lane.linger_ms, tuned.lane.attempts_max), (2, 2000, 3));
        assert_eq!((tuned.lane.request_timeout_ms, tuned.lane.patrols[0].period_ms), (29_000, 86_400_000));
        assert_ne!((plain.lane.generation, plain.digest), (tuned.lane.generation, tuned.digest));
        assert_eq!(plain.lane.seed, tuned.lane.seed, "it is the id's");

        let secret = "{ env = \"DESIST_TEST_NOT_SET\" }";
        let two = |connector: &str, settings: &str| plan(&config(connector, "", &settings.replace("SECRET", secret))).pop().unwrap();
        let campaign_settings = "organization = \"acme\"\napi_key = SECRET\ntoken = SECRET\n".replace("SECRET", secret);
        let campaign = two("adobe-campaign-standard", "organization = \"acme\"\napi_key = SECRET\ntoken = SECRET\n");
        campaign.lane.check().unwrap();
        assert_eq!((campaign.ceiling, campaign.required, campaign.lane.floor), (Level::Verified, Level::Applied, Level::Verified));
        assert_eq!(campaign.purposes, ["sale", "sharing"], "what its calls say");
        assert_eq!(campaign.lane.patrols, [Patrol { kind: PatrolKind::Read, period_ms: 7 * 86_400_000 }]);
        assert!(campaign.lane.probe && campaign.kinds.contains(&Kind::Email));
        let paced = plan(&config("adobe-campaign-standard", "rate = [\"300/1m\"]\n", &campaign_settings)).pop().unwrap();
        assert_eq!(paced.lane.rates, [Rate { calls: 100, window_ms: 60_000 }], "each person is looked up and read back, too");
        let marketo = two("marketo", "instance = \"123-abc-456\"\nclient_id = \"x\"\nclient_secret = SECRET\n");
        assert_eq!((marketo.verified, marketo.ceiling, marketo.required), (false, Level::Accepted, Level::Accepted));
        assert_eq!(marketo.lane.rates, [Rate { calls: 60, window_ms: 20_000 }, Rate { calls: 20_000, window_ms: 86_400_000 }]);
    }

    #[test]
    fn what_fades_is_told_again() {
        let settings = desist_connector::SHIPPED.iter().find(|one| one.id == "google-data-manager").unwrap();
        let manifest = Manifest::parse(settings.text, "g").unwrap();
        let mut given = String::new();
        for (name, setting) in &manifest.declared().settings {
            use desist_connector::declared::SettingKind as K;
            let value = match setting.kind {
                K::Secret => "{ env = \"DESIST_TEST_NOT_SET\" }",
                K::List => "[\"1\"]",
                K::Int => "1",
                K::Bool => "true",
                _ => "\"1234567890\"",
            };
            if setting.required {
                given.extend([name.as_str(), " = ", value, "\n"]);
            }
        }
        let planned = plan(&config("google-data-manager", "resend_every = \"5d\"\n", &given)).pop().unwrap();
        planned.lane.check().unwrap();
        assert_eq!(planned.resend_ms, Some(5 * 86_400_000));
        assert_eq!(planned.lane.patrols, [Patrol { kind: PatrolKind::Send, period_ms: 4 * 86_400_000 }]);
    }
}
