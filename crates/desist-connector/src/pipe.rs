//! Pipes: the closed list of functions that a value can pass through, with their types.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use desist_core::identifier::{Identifier, Kind};
use md5::Md5;
use serde_json::Value;
use sha2::{Digest, Sha256, Sha512};

use crate::expression::SyntaxError;
use crate::limits::PIPE_FUNCTIONS_MAX;
use crate::problem::did_you_mean;

/// A value on its way through a pipe.
#[derive(Clone, PartialEq)]
pub(crate) enum Piped {
    Text(String),
    Bytes(Vec<u8>),
    /// An identifier of which only the SHA-256 of its normal form is known.
    Digest(Kind, [u8; 32]),
    Int(i64),
    /// Seconds since 1970.
    Time(i64),
    Json(Value),
    List(Vec<Self>),
    /// An optional setting that is not set.
    Missing,
}

/// Why a value cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// Only a digest is known, and the destination needs something else than that digest.
    HashOnly,
    /// The value cannot be written in the form that is asked for.
    Value,
}

/// What a value is, as far as a manifest alone tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Text,
    Bytes,
    Int,
    Bool,
    Time,
    Json,
    Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Type {
    pub base: Base,
    pub list: bool,
    pub optional: bool,
}

impl Type {
    pub const fn one(base: Base) -> Self {
        Self { base, list: false, optional: false }
    }
    pub const fn list(base: Base) -> Self {
        Self { base, list: true, optional: false }
    }

    pub const fn name(self) -> &'static str {
        match (self.base, self.list) {
            (Base::Text, false) => "a text",
            (Base::Text, true) => "a list of texts",
            (Base::Bytes, false) => "bytes",
            (Base::Bytes, true) => "a list of bytes",
            (Base::Int, _) => "a whole number",
            (Base::Bool, _) => "true or false",
            (Base::Time, _) => "a time",
            (Base::Json, false) => "a JSON value",
            (Base::Json, true) => "a list",
            (Base::Secret, _) => "a secret",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Function {
    Trim,
    Lower,
    Upper,
    Digits,
    E164,
    UsLast10,
    GmailDots,
    PlusCut,
    Sha256,
    Sha512,
    Md5,
    Hex,
    Base64,
    Iso8601,
    EpochS,
    EpochMs,
    Default(String),
    SoqlList,
}

/// Every function: name, what it takes, what it gives.
pub const FUNCTIONS: [(&str, &str, &str); 18] = [
    ("trim", "text", "the text without white space at both ends"),
    ("lower", "text", "lower case"),
    ("upper", "text", "upper case"),
    ("digits", "text", "its digits 0 to 9 alone"),
    ("e164", "text", "the telephone number in E.164; what is none is not sent"),
    ("us_last10", "text", "the ten digits of a number of the United States or Canada; what is none is not sent"),
    ("gmail_dots", "text", "the address without dots in front of the @, at gmail.com and googlemail.com alone"),
    ("plus_cut", "text", "the address without what follows a plus in front of the @, at any domain"),
    ("sha256", "text or bytes", "32 bytes"),
    ("sha512", "text or bytes", "64 bytes"),
    ("md5", "text or bytes", "16 bytes"),
    ("hex", "bytes", "a text of hexadecimal digits in lower case"),
    ("base64", "bytes", "a text in Base64 (RFC 4648 4) with padding"),
    ("iso8601", "time", "a text such as 2026-11-22T06:29:26Z"),
    ("epoch_s", "time", "whole seconds since 1970"),
    ("epoch_ms", "time", "whole milliseconds since 1970"),
    ("default", "an optional setting", "the setting, or the text in brackets: default('US')"),
    ("soql_list", "a list of texts", "a text: a list in brackets and quotes for SOQL"),
];

/// Functions in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pipe(Vec<Function>);

impl Pipe {
    /// `trim|lower|sha256|hex`
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut functions = Vec::new();
        let (mut start, mut quoted) = (0, false);
        for (at, c) in text.char_indices().chain([(text.len(), '|')]) {
            match c {
                '\'' => quoted = !quoted,
                '|' if !quoted || at == text.len() => {
                    functions.push(function(&text[start..at]).map_err(|message| SyntaxError::new(start, message))?);
                    start = at + 1;
                }
                _ => {}
            }
        }
        if functions.len() > PIPE_FUNCTIONS_MAX {
            return Err(SyntaxError::new(0, format!("has {} functions, at most {PIPE_FUNCTIONS_MAX} are allowed", functions.len())));
        }
        Ok(Self(functions))
    }

    /// What comes out if `input` goes in.
    pub fn check(&self, input: Type) -> Result<Type, String> {
        self.0.iter().try_fold(input, |input, function| {
            let (takes, gives): (&[Base], Base) = match function {
                Function::Trim
                | Function::Lower
                | Function::Upper
                | Function::Digits
                | Function::E164
                | Function::UsLast10
                | Function::GmailDots
                | Function::PlusCut => (&[Base::Text], Base::Text),
                Function::Sha256 | Function::Sha512 | Function::Md5 => (&[Base::Text, Base::Bytes], Base::Bytes),
                Function::Hex | Function::Base64 => (&[Base::Bytes], Base::Text),
                Function::Iso8601 => (&[Base::Time], Base::Text),
                Function::EpochS | Function::EpochMs => (&[Base::Time], Base::Int),
                Function::Default(_) if input.optional && input.base == Base::Text => return Ok(Type { optional: false, ..input }),
                Function::Default(_) => return Err("`default` is for an optional text setting, and this is none".to_owned()),
                Function::SoqlList if input == Type::list(Base::Text) => return Ok(Type::one(Base::Text)),
                Function::SoqlList => return Err(format!("`soql_list` takes a list of texts, not {}", input.name())),
            };
            if input.optional || !takes.contains(&input.base) {
                let what = if input.optional { "a value that may be missing" } else { input.name() };
                return Err(format!("`{}` does not take {what}", function.name()));
            }
            Ok(Type { base: gives, ..input })
        })
    }

    pub fn apply(&self, value: Piped) -> Result<Piped, Unusable> {
        self.0.iter().try_fold(value, |value, function| function.apply(value))
    }

    /// The texts that stand in for settings that are missing.
    pub fn defaults(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|function| match function {
            Function::Default(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Whether what comes out has letters, digits and harmless signs alone, or is quoted by the pipe itself.
    pub fn is_safe_in_text(&self) -> bool {
        use Function as F;
        let harmless = [F::Hex, F::Digits, F::UsLast10, F::E164, F::EpochS, F::EpochMs, F::Iso8601, F::SoqlList];
        self.0.last().is_some_and(|last| harmless.contains(last))
    }
}

fn function(text: &str) -> Result<Function, String> {
    let text = text.trim();
    if let Some(argument) = text.strip_prefix("default(").and_then(|rest| rest.strip_suffix(')')) {
        let inner = argument.trim().strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        let inner = inner.filter(|inner| !inner.contains('\''));
        return inner.map(|inner| Function::Default(inner.to_owned())).ok_or_else(|| "write default('text')".to_owned());
    }
    Ok(match text {
        "trim" => Function::Trim,
        "lower" => Function::Lower,
        "upper" => Function::Upper,
        "digits" => Function::Digits,
        "e164" => Function::E164,
        "us_last10" => Function::UsLast10,
        "gmail_dots" => Function::GmailDots,
        "plus_cut" => Function::PlusCut,
        "sha256" => Function::Sha256,
        "sha512" => Function::Sha512,
        "md5" => Function::Md5,
        "hex" => Function::Hex,
        "base64" => Function::Base64,
        "iso8601" => Function::Iso8601,
        "epoch_s" => Function::EpochS,
        "epoch_ms" => Function::EpochMs,
        "soql_list" => Function::SoqlList,
        "default" => return Err("write default('text')".to_owned()),
        "" => return Err("a function is missing".to_owned()),
        other => {
            let near = did_you_mean(other, FUNCTIONS.iter().map(|(name, ..)| *name));
            return Err(format!("there is no function {}{near}", crate::problem::shown(other)));
        }
    })
}

impl Function {
    const fn name(&self) -> &'static str {
        match self {
            Self::Trim => "trim",
            Self::Lower => "lower",
            Self::Upper => "upper",
            Self::Digits => "digits",
            Self::E164 => "e164",
            Self::UsLast10 => "us_last10",
            Self::GmailDots => "gmail_dots",
            Self::PlusCut => "plus_cut",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Md5 => "md5",
            Self::Hex => "hex",
            Self::Base64 => "base64",
            Self::Iso8601 => "iso8601",
            Self::EpochS => "epoch_s",
            Self::EpochMs => "epoch_ms",
            Self::Default(_) => "default",
            Self::SoqlList => "soql_list",
        }
    }

    fn apply(&self, value: Piped) -> Result<Piped, Unusable> {
        match (self, value) {
            (Self::SoqlList, Piped::List(values)) => soql_list(&values),
            // What cannot be sent is left out of a list; a list of nothing cannot be sent.
            (_, Piped::List(values)) => {
                let mut failed = None;
                let kept: Vec<_> =
                    values.into_iter().filter_map(|value| self.apply(value).map_err(|why| failed = Some(why)).ok()).collect();
                match failed {
                    Some(why) if kept.is_empty() => Err(why),
                    _ => Ok(Piped::List(kept)),
                }
            }
            (_, Piped::Digest(kind, digest)) => self.digest(kind, digest),
            (Self::Default(text), Piped::Missing) => Ok(Piped::Text(text.clone())),
            (Self::Default(_), value) => Ok(value),
            (Self::Iso8601, Piped::Time(at)) => {
                jiff::Timestamp::from_second(at).map(|at| Piped::Text(at.to_string())).map_err(|_| Unusable::Value)
            }
            (Self::EpochS, Piped::Time(at)) => Ok(Piped::Int(at)),
            (Self::EpochMs, Piped::Time(at)) => at.checked_mul(1000).map(Piped::Int).ok_or(Unusable::Value),
            (Self::Sha256, Piped::Text(text)) => Ok(Piped::Bytes(Sha256::digest(text).to_vec())),
            (Self::Sha256, Piped::Bytes(bytes)) => Ok(Piped::Bytes(Sha256::digest(bytes).to_vec())),
            (Self::Sha512, Piped::Text(text)) => Ok(Piped::Bytes(Sha512::digest(text).to_vec())),
            (Self::Sha512, Piped::Bytes(bytes)) => Ok(Piped::Bytes(Sha512::digest(bytes).to_vec())),
            (Self::Md5, Piped::Text(text)) => Ok(Piped::Bytes(Md5::digest(text).to_vec())),
            (Self::Md5, Piped::Bytes(bytes)) => Ok(Piped::Bytes(Md5::digest(bytes).to_vec())),
            (Self::Hex, Piped::Bytes(bytes)) => Ok(Piped::Text(hex(&bytes))),
            (Self::Base64, Piped::Bytes(bytes)) => Ok(Piped::Text(STANDARD.encode(bytes))),
            (function, Piped::Text(text)) => function.text(&text).map(Piped::Text).ok_or(Unusable::Value),
            // The types were checked when the manifest was read.
            _ => Err(Unusable::Value),
        }
    }

    /// A digest stands for its normal form: what leaves every normal form as it is leaves the digest as it is.
    fn digest(&self, kind: Kind, digest: [u8; 32]) -> Result<Piped, Unusable> {
        let keeps = match self {
            Self::Trim | Self::Default(_) => true,
            Self::Lower => matches!(kind, Kind::Email | Kind::Phone | Kind::Maid),
            Self::E164 => kind == Kind::Phone,
            _ => false,
        };
        match self {
            Self::Sha256 => Ok(Piped::Bytes(digest.to_vec())),
            _ if keeps => Ok(Piped::Digest(kind, digest)),
            _ => Err(Unusable::HashOnly),
        }
    }

    fn text(&self, text: &str) -> Option<String> {
        let digits = || text.chars().filter(char::is_ascii_digit).collect::<String>();
        let some = |text: String| (!text.is_empty()).then_some(text);
        match self {
            Self::Trim => some(text.trim().to_owned()),
            Self::Lower => Some(text.to_lowercase()),
            Self::Upper => Some(text.to_uppercase()),
            Self::Digits => some(digits()),
            Self::E164 => Identifier::from_value(Kind::Phone, text).ok().map(|(_, normal)| normal.as_str().to_owned()),
            Self::UsLast10 => {
                let digits = digits();
                match (digits.len(), digits.strip_prefix('1')) {
                    (11, Some(ten)) => Some(ten.to_owned()),
                    (10, _) if !text.trim_start().starts_with('+') => Some(digits),
                    _ => None,
                }
            }
            Self::GmailDots => Some(match text.rsplit_once('@') {
                Some((local, domain)) if ["gmail.com", "googlemail.com"].iter().any(|gmail| domain.eq_ignore_ascii_case(gmail)) => {
                    format!("{}@{domain}", local.replace('.', ""))
                }
                _ => text.to_owned(),
            }),
            Self::PlusCut => Some(match text.rsplit_once('@') {
                Some((local, domain)) => format!("{}@{domain}", local.split('+').next().unwrap_or(local)),
                None => text.to_owned(),
            }),
            _ => None,
        }
    }
}

/// Quotes as SOQL does, so that no value ends its own quotes.
fn soql_list(values: &[Piped]) -> Result<Piped, Unusable> {
    let mut list = String::from("(");
    let mut why = Unusable::Value;
    for value in values {
        let text = match value {
            Piped::Text(text) if !text.contains(char::is_control) => text,
            Piped::Digest(..) => {
                why = Unusable::HashOnly;
                continue;
            }
            _ => continue,
        };
        if list.len() > 1 {
            list.push(',');
        }
        list.push('\'');
        for c in text.chars() {
            if matches!(c, '\'' | '"' | '\\') {
                list.push('\\');
            }
            list.push(c);
        }
        list.push('\'');
    }
    if list.len() == 1 {
        return Err(why);
    }
    list.push(')');
    Ok(Piped::Text(list))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pipe: &str, value: Piped) -> Result<String, Unusable> {
        match Pipe::parse(pipe).unwrap_or_else(|error| panic!("{pipe}: {error:?}")).apply(value)? {
            Piped::Text(text) => Ok(text),
            Piped::Int(number) => Ok(number.to_string()),
            Piped::Digest(..) => Ok("digest".to_owned()),
            _ => Ok("other".to_owned()),
        }
    }

    /// Vectors for each function; those of digests are from FIPS 180-4 and RFC 1321.
    #[test]
    fn functions_give_what_their_vectors_say() {
        let text = |text: &str| Piped::Text(text.to_owned());
        for (pipe, value, expected) in [
            ("trim", text(" a b\t"), Ok("a b")),
            ("trim", text("  "), Err(Unusable::Value)),
            ("lower", text("ÄB"), Ok("äb")),
            ("upper", text("äb"), Ok("ÄB")),
            ("digits", text("+1 (202) 555-0123"), Ok("12025550123")),
            ("digits", text("x"), Err(Unusable::Value)),
            ("e164", text("(202) 555-0123"), Ok("+12025550123")),
            ("e164", text("12"), Err(Unusable::Value)),
            ("us_last10", text("+12025550123"), Ok("2025550123")),
            ("us_last10", text("202-555-0123"), Ok("2025550123")),
            ("us_last10", text("+442079460018"), Err(Unusable::Value)),
            ("us_last10", text("+4920794600"), Err(Unusable::Value)),
            ("gmail_dots", text("r.o.sa@GMail.com"), Ok("rosa@GMail.com")),
            ("gmail_dots", text("r.o.sa@googlemail.com"), Ok("rosa@googlemail.com")),
            ("gmail_dots", text("r.o@example.org"), Ok("r.o@example.org")),
            ("gmail_dots", text("r.o@notgmail.com"), Ok("r.o@notgmail.com")),
            ("plus_cut", text("rosa+shop+x@example.org"), Ok("rosa@example.org")),
            ("plus_cut", text("no address+"), Ok("no address+")),
            ("sha256|hex", text("abc"), Ok("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")),
            ("sha256|base64", text("abc"), Ok("ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=")),
            (
                "sha512|hex",
                text("abc"),
                Ok(
                    "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
                ),
            ),
            ("md5|hex", text("abc"), Ok("900150983cd24fb0d6963f7d28e17f72")),
            // A digest of a digest: some destinations ask for it.
            ("sha256|hex|md5|hex", text("abc"), Ok("6ea923f0bba18e2a736ecae8cb61ff78")),
            ("iso8601", Piped::Time(1_795_328_966), Ok("2026-11-22T06:29:26Z")),
            ("iso8601", Piped::Time(i64::MAX), Err(Unusable::Value)),
            ("epoch_s", Piped::Time(7), Ok("7")),
            ("epoch_ms", Piped::Time(7), Ok("7000")),
            ("epoch_ms", Piped::Time(i64::MAX), Err(Unusable::Value)),
            ("default('US')", Piped::Missing, Ok("US")),
            ("default('a|b')", Piped::Missing, Ok("a|b")),
            ("default('US')", text("CA"), Ok("CA")),
            ("soql_list", Piped::List(vec![text("o'brien"), text("a\\")]), Ok("('o\\'brien','a\\\\')")),
            ("soql_list", Piped::List(vec![text("a\nb")]), Err(Unusable::Value)),
            ("soql_list", Piped::List(vec![Piped::Digest(Kind::Email, [1; 32])]), Err(Unusable::HashOnly)),
            ("lower|soql_list", Piped::List(vec![text("A")]), Ok("('a')")),
        ] {
            assert_eq!(run(pipe, value), expected.map(str::to_owned), "{pipe}");
        }
    }

    #[test]
    fn a_digest_goes_only_where_the_value_would_give_the_same() {
        let (identifier, normal) = Identifier::from_value(Kind::Email, "Rosa@Example.org").expect("an address");
        let value = || Piped::Text(normal.as_str().to_owned());
        let digest = || Piped::Digest(Kind::Email, identifier.digest);
        for pipe in ["sha256|hex", "trim|lower|sha256|hex", "lower|trim|sha256|base64", "trim|sha256|sha256|hex", "sha256|hex|md5|hex"] {
            assert_eq!(run(pipe, digest()), run(pipe, value()), "{pipe}");
        }
        for pipe in ["upper|sha256|hex", "gmail_dots|sha256|hex", "plus_cut", "md5|hex", "sha512|hex", "digits|sha256|hex", "e164"] {
            assert_eq!(run(pipe, digest()), Err(Unusable::HashOnly), "{pipe}");
        }
        // Account numbers keep their case in normal form.
        assert_eq!(run("lower|sha256|hex", Piped::Digest(Kind::CustomerId, [1; 32])), Err(Unusable::HashOnly));
        assert!(run("e164|sha256|hex", Piped::Digest(Kind::Phone, [1; 32])).is_ok());
    }

    #[test]
    fn types_are_checked_before_anything_is_sent() {
        let optional = Type { optional: true, ..Type::one(Base::Text) };
        for (pipe, input, expected) in [
            ("trim|lower|sha256|hex", Type::one(Base::Text), Some(Type::one(Base::Text))),
            ("sha256", Type::one(Base::Text), Some(Type::one(Base::Bytes))),
            ("sha256|lower", Type::one(Base::Text), None),
            ("hex", Type::one(Base::Text), None),
            ("lower", Type::one(Base::Time), None),
            ("epoch_ms", Type::one(Base::Time), Some(Type::one(Base::Int))),
            ("epoch_ms", Type::one(Base::Int), None),
            ("lower", Type::list(Base::Text), Some(Type::list(Base::Text))),
            ("soql_list", Type::list(Base::Text), Some(Type::one(Base::Text))),
            ("soql_list", Type::one(Base::Text), None),
            ("lower", Type::one(Base::Secret), None),
            ("default('x')", optional, Some(Type::one(Base::Text))),
            ("lower", optional, None),
            ("default('x')", Type::one(Base::Text), None),
        ] {
            assert_eq!(Pipe::parse(pipe).expect("a pipe").check(input).ok(), expected, "{pipe} {input:?}");
        }
        for (pipe, at) in [("trim|lowr", 5), ("", 0), ("trim||hex", 5), ("default", 0), ("default(x)", 0), ("default('x''y')", 0)] {
            assert_eq!(Pipe::parse(pipe).map_err(|error| error.at), Err(at), "{pipe}");
        }
        let most = ["trim"; PIPE_FUNCTIONS_MAX].join("|");
        assert!(Pipe::parse(&most).is_ok());
        assert!(Pipe::parse(&format!("{most}|trim")).is_err());
        for (name, ..) in FUNCTIONS {
            let text = if name == "default" { "default('x')" } else { name };
            assert_eq!(function(text).expect("a function").name(), name);
        }
    }
}
