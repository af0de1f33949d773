//! `desist verify FILE`: checks a receipt, alone or with deliveries, two checkpoints or a log export, with no server and no store.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use desist_proof::Hash;
use desist_proof::checkpoint::{Opened, SignedCheckpoint, verify_pair};
use desist_proof::delivery::{Deliveries, DeliveriesError, Told, Unproven};
use desist_proof::export::verify_log;
use desist_proof::note::{KeyError, Verifier};
use desist_proof::receipt::{Receipt, ReceiptError, Verified};
use serde::Serialize;

use super::{CliError, Finding, OutputArgs, print_json, say};

/// Largest file that is checked: a log of some ten million entries.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// `desist verify`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0: good, 1: not good (the first broken link is named), 2: it cannot be read.\nThe key is at /log/key of the business; take it from a place that you trust, not from the file.\n\nExamples:\n  desist verify receipt.json --key 'desist.invalid/acme/0123456789abcdef+1a2b3c4d+AX...'\n  desist verify newer.txt --older older.txt --proof proof.json --key log.key.txt\n  desist verify entries.ndjson --checkpoint checkpoint.txt --key log.key.txt"
)]
pub struct VerifyArgs {
    /// The receipt, or what `export request` wrote; or a checkpoint, with --older; or the entries of a log, one a line, with --checkpoint.
    file: PathBuf,
    /// The verifier key of the log, or a file that holds it; a log that changed its key has several, one a line.
    #[arg(long, value_name = "VKEY")]
    key: String,
    /// The verifier key of a witness, or a file that holds it; may be given several times.
    #[arg(long, value_name = "VKEY")]
    witness: Vec<String>,
    /// The signed checkpoint that the entries in FILE lead to.
    #[arg(long, value_name = "FILE", conflicts_with = "older")]
    checkpoint: Option<PathBuf>,
    /// An earlier checkpoint, of which the one in FILE must be a continuation.
    #[arg(long, value_name = "FILE", requires = "proof")]
    older: Option<PathBuf>,
    /// The consistency proof between the two: a JSON array of hashes in base64.
    #[arg(long, value_name = "FILE", requires = "older")]
    proof: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

impl VerifyArgs {
    /// The check of a receipt against a key.
    pub fn new(file: PathBuf, key: String) -> Self {
        Self { file, key, witness: Vec::new(), checkpoint: None, older: None, proof: None, output: OutputArgs { json: false } }
    }
}

/// What was found.
#[derive(Default, Serialize)]
struct Report {
    /// `good`, `bad` or `unreadable`.
    result: &'static str,
    /// The first link that is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// Whose word it is that the log has no second history; see [`trust`].
    #[serde(skip_serializing_if = "Option::is_none")]
    trust: Option<String>,
    /// Entries of the checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    /// What destinations were told, each proven.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deliveries: Vec<DeliveryReport>,
    /// What the business says of the others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unproven: Vec<Unproven>,
}

/// One delivery.
#[derive(Serialize)]
struct DeliveryReport {
    /// Id of the destination.
    destination: String,
    /// When its answer was there, as the business says.
    at: String,
    /// The entry that made what was sent so.
    version: u64,
    /// `absent`, `accepted`, `applied` or `verified`.
    level: &'static str,
    status: u16,
    /// The first 16 bytes of the answer's SHA-256, in hexadecimal.
    answer: String,
    /// The entry under which it is recorded.
    seq: u64,
    recorded_at: String,
    /// Whether the entry of the receipt names whom it was about.
    named: bool,
    /// Whether what was sent has the entry of the receipt in it.
    since: bool,
}

impl From<Told> for DeliveryReport {
    fn from(told: Told) -> Self {
        Self {
            destination: told.destination.id,
            at: time_text(told.record.at),
            version: told.record.version,
            level: told.record.level.name(),
            status: told.record.status,
            answer: format!("{:032x}", u128::from_be_bytes(told.record.answer)),
            seq: told.seq,
            recorded_at: told.recorded_at,
            named: told.is_named,
            since: told.is_since,
        }
    }
}

impl Report {
    fn bad(link: &'static str, problem: &impl ToString) -> Self {
        Self { result: "bad", link: Some(link), problem: Some(problem.to_string()), ..Self::default() }
    }
    fn unreadable(link: &'static str, problem: &impl ToString) -> Self {
        Self { result: "unreadable", ..Self::bad(link, problem) }
    }
    fn good(checkpoint: &Opened) -> Self {
        Self { result: "good", trust: Some(trust(checkpoint.cosigned_by())), size: Some(checkpoint.checkpoint().size()), ..Self::default() }
    }
}

/// `self-attested`, or `witnessed by NAME at TIME` for each witness, in the order of the file. The page `/verify` writes the same.
fn trust(cosigned_by: &[(String, u64)]) -> String {
    if cosigned_by.is_empty() {
        return "self-attested".to_owned();
    }
    let witnesses: Vec<_> = cosigned_by.iter().map(|(name, time)| format!("{name} at {}", time_text(*time))).collect();
    format!("witnessed by {}", witnesses.join(", "))
}

/// Unix seconds as RFC 3339; as a number where the calendar of the format ends.
fn time_text(seconds: u64) -> String {
    // A timestamp of jiff ends a day before that calendar does.
    let at = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0).checked_add(std::time::Duration::from_secs(seconds));
    at.map_or_else(|_| format!("Unix time {seconds}"), |at| format!("{at}Z"))
}

pub fn run(args: &VerifyArgs) -> Result<Finding, CliError> {
    let logs = keys("--key", &args.key)?;
    let witnesses = args.witness.iter().map(|witness| keys("--witness", witness)).collect::<Result<Vec<_>, _>>()?.concat();
    let open = |path: &Path| -> Result<Result<Opened, Report>, CliError> {
        let text = text(path)?;
        Ok(match SignedCheckpoint::parse(&text) {
            Err(error) => Err(Report::unreadable("checkpoint", &error)),
            Ok(signed) => signed.open(&logs, &witnesses).map_err(|error| Report::bad("checkpoint signature", &error)),
        })
    };
    let report = match (&args.older, &args.proof, &args.checkpoint) {
        (Some(older), Some(proof), _) => match (open(older)?, open(&args.file)?) {
            (Err(report), _) | (_, Err(report)) => report,
            (Ok(older), Ok(newer)) => match hashes(proof)? {
                None => Report::unreadable("consistency", &"the proof is not a JSON array of hashes in base64"),
                Some(proof) => match verify_pair(&older, &newer, &proof) {
                    Ok(()) => Report::good(&newer),
                    Err(error) => Report::bad("consistency", &error),
                },
            },
        },
        (_, _, Some(checkpoint)) => match open(checkpoint)? {
            Err(report) => report,
            Ok(checkpoint) => {
                let bytes = bytes(&args.file)?;
                let lines = bytes.strip_suffix(b"\n").unwrap_or(&bytes).split(|byte| *byte == b'\n');
                match verify_log(lines.filter(|_| !bytes.is_empty()), &checkpoint) {
                    Ok(()) => Report::good(&checkpoint),
                    Err(error) => Report::bad("entries", &error),
                }
            }
        },
        _ => receipt(&bytes(&args.file)?, &logs, &witnesses),
    };
    if args.output.json {
        print_json(&report)?;
    } else {
        show(&report, &args.file);
    }
    match report.result {
        "good" => Ok(Finding::Yes),
        "bad" => Ok(Finding::No),
        _ => Err(CliError::said(format!("{}: it cannot be read", args.file.display()))),
    }
}

fn receipt(bytes: &[u8], logs: &[Verifier], witnesses: &[Verifier]) -> Report {
    if Deliveries::is_meant(bytes) {
        return deliveries(bytes, logs, witnesses);
    }
    let verified = Receipt::parse(bytes).map_err(ReceiptError::Format).and_then(|receipt| receipt.verify(logs, witnesses));
    match verified {
        Ok(verified) => recorded(&verified),
        Err(error @ ReceiptError::Format(_)) => Report::unreadable(error.link(), &error),
        Err(error) => Report::bad(error.link(), &error),
    }
}

fn recorded(verified: &Verified) -> Report {
    Report {
        kind: Some(verified.entry.kind.clone()),
        seq: Some(verified.entry.seq),
        at: Some(verified.entry.at.clone()),
        ..Report::good(&verified.checkpoint)
    }
}

fn deliveries(bytes: &[u8], logs: &[Verifier], witnesses: &[Verifier]) -> Report {
    let read = Deliveries::parse(bytes).map_err(DeliveriesError::Format);
    match read.and_then(|file| file.verify(logs, witnesses).map(|verified| (file, verified))) {
        Ok((file, (receipt, told))) => {
            Report { deliveries: told.into_iter().map(DeliveryReport::from).collect(), unproven: file.unproven, ..recorded(&receipt) }
        }
        Err(error @ DeliveriesError::Format(_)) => Report::unreadable(error.link(), &error),
        Err(error) => Report::bad(error.link(), &error),
    }
}

fn show(report: &Report, file: &Path) {
    say(&format!("{}: {}", file.display(), report.result));
    let line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            say(&format!("  {name:<9} {value}"));
        }
    };
    line("link", report.link.map(str::to_owned));
    line("problem", report.problem.clone());
    line(
        "entry",
        report
            .seq
            .map(|seq| format!("{seq}, {} at {}", report.kind.as_deref().unwrap_or_default(), report.at.as_deref().unwrap_or_default())),
    );
    line("log", report.size.map(|size| format!("{size} entries")));
    line("trust", report.trust.clone());
    for told in &report.deliveries {
        let DeliveryReport { destination, at, version, level, status, answer, seq, recorded_at, .. } = told;
        say(&format!("  {destination:?}"));
        line("  told", Some(format!("at {at}, as of entry {version}")));
        line("  level", Some((*level).to_owned()));
        line("  answer", Some(format!("status {status}, SHA-256 begins {answer}")));
        line("  recorded", Some(format!("by entry {seq} at {recorded_at}")));
        if !told.since {
            line("  note", Some("this is older than the entry: the choice was known before, by the word of the business alone".to_owned()));
        }
        if !told.named {
            line(
                "  note",
                Some("the entry does not name whom this is about: that it is the same person is the word of the business".to_owned()),
            );
        }
    }
    for Unproven { destination, state } in &report.unproven {
        say(&format!("  {:?}: not proven; the business says: {state:?}", destination.id));
    }
    if !report.deliveries.is_empty() {
        say(
            "  A delivery proves that the business wrote down this answer at that time and did not change it since. It does not prove\n  that the destination gave it: ask the destination for an answer with this digest. Nor does it prove what the destination did.",
        );
    }
}

/// A key as text, or a file with keys, one a line: every key has plus signs, which few names of files have.
pub(super) fn keys(flag: &str, given: &str) -> Result<Vec<Verifier>, CliError> {
    let written = match given.parse::<Verifier>() {
        Err(_) if Path::new(given).is_file() => text(Path::new(given))?,
        _ => given.to_owned(),
    };
    let lines = || written.lines().map(str::trim).filter(|line| !line.is_empty());
    if lines().next().is_none() {
        return Err(CliError::said(format!("{flag}: there is no key in {given:?}; give what the log has at /log/key")));
    }
    lines().map(|line| line.parse().map_err(|error: KeyError| CliError::said(format!("{flag}: {error}")))).collect()
}

fn bytes(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(CliError::io(path.display()))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(CliError::io(path.display()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(CliError::said(format!("{}: larger than {FILE_BYTES_MAX} bytes", path.display())));
    }
    Ok(bytes)
}

fn text(path: &Path) -> Result<String, CliError> {
    String::from_utf8(bytes(path)?).map_err(|_| CliError::said(format!("{}: not UTF-8", path.display())))
}

fn hashes(path: &Path) -> Result<Option<Vec<Hash>>, CliError> {
    use base64::Engine as _;
    let texts: Option<Vec<String>> = serde_json::from_slice(&bytes(path)?).ok();
    let decode = |text: &String| base64::engine::general_purpose::STANDARD.decode(text).ok()?.try_into().ok();
    Ok(texts.and_then(|texts| texts.iter().map(decode).collect()))
}
