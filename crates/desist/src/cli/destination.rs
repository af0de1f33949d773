//! `desist destination`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use axum::http::Method;
use clap::{Args, Subcommand};

use super::connect::Local;
use super::{CliError, Finding, OutputArgs, StoreArgs, print_json, say};
use crate::web::destinations::{
    DestinationView, DestinationsAnswer, DoneBody, EVIDENCE_BYTES_MAX, ParkedAnswer, ReplayAnswer, ReplayBody, target_of,
};
use crate::web::operator::{TaskRow, TasksAnswer, TasksBody};

/// `desist destination`
#[derive(Debug, Args)]
pub struct DestinationArgs {
    #[command(subcommand)]
    what: What,
}

/// Which destination, and where.
#[derive(Debug, Args)]
struct One {
    /// The destination's id.
    id: String,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the destinations: what each is doing, and what waits.
    #[command(after_help = "Exit code 0: no alarm stands, 1: one does.\n\nExample:\n  desist destination list")]
    List {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show all that is known of one.
    #[command(after_help = "Exit code 0: no alarm of it stands, 1: one does.\n\nExample:\n  desist destination show crm")]
    Show(#[command(flatten)] One),
    /// List whom it refuses, and why; people are numbers.
    #[command(after_help = "Exit code 0: nobody, 1: somebody.\n\nExample:\n  desist destination parked crm --json")]
    Parked(#[command(flatten)] One),
    /// Have dead letters tried again.
    #[command(
        after_help = "Examples:\n  desist destination replay crm --all\n  desist destination replay crm --target s12\n  desist destination replay crm --from 100 --to 200"
    )]
    Replay {
        #[command(flatten)]
        one: One,
        /// One target, as `parked` shows it.
        #[arg(long, value_name = "TARGET", conflicts_with_all = ["from", "to", "all"])]
        target: Option<String>,
        /// Those parked at this change or later.
        #[arg(long, value_name = "SEQ", requires = "to", conflicts_with = "all")]
        from: Option<u64>,
        /// Those parked at this change or earlier.
        #[arg(long, value_name = "SEQ", requires = "from")]
        to: Option<u64>,
        /// All of them.
        #[arg(long)]
        all: bool,
    },
    /// Stop it; what it has to be told waits.
    #[command(after_help = "Example:\n  desist destination pause crm")]
    Pause(#[command(flatten)] One),
    /// Let it go on.
    #[command(after_help = "Example:\n  desist destination resume crm")]
    Resume(#[command(flatten)] One),
    /// Try it at once, as after its credentials were put right.
    #[command(after_help = "Example:\n  desist destination try crm")]
    Try(#[command(flatten)] One),
    /// Record what a person told it.
    #[command(
        after_help = "SEQ is what `desist destination tasks ID` printed.\n\nExample:\n  desist destination done paper-list --through 1042 --by 'Ada Byron' --evidence letter.txt"
    )]
    Done {
        #[command(flatten)]
        one: One,
        /// Everything up to this log entry was told.
        #[arg(long, value_name = "SEQ")]
        through: u64,
        /// Who told it; kept sealed.
        #[arg(long, value_name = "NAME")]
        by: String,
        /// A text file of at most 64 KiB that shows it; kept sealed.
        #[arg(long, value_name = "FILE")]
        evidence: Option<PathBuf>,
    },
    /// Show what a person has to tell it now.
    #[command(
        after_help = "Exit code 0: nothing, 1: something. The file holds personal data; only you can read it. Needs the server.\n\nExample:\n  desist destination tasks paper-list --output tasks.csv"
    )]
    Tasks {
        #[command(flatten)]
        one: One,
        /// Write whom and what into a new CSV file.
        #[arg(long = "output", value_name = "FILE.csv")]
        file: Option<PathBuf>,
    },
}

pub fn run(args: DestinationArgs) -> Result<Finding, CliError> {
    match args.what {
        What::List { store, output } => list(&store, output),
        What::Show(one) => show(&one),
        What::Parked(one) => parked(&one),
        What::Replay { one, target, from, to, all } => replay(&one, target, from, to, all),
        What::Pause(one) => act(&one, "pause", "paused; what it has to be told waits"),
        What::Resume(one) => act(&one, "resume", "goes on"),
        What::Try(one) => act(&one, "try", "is tried now"),
        What::Done { one, through, by, evidence } => done(&one, through, by, evidence.as_deref()),
        What::Tasks { one, file } => tasks(&one, file.as_deref()),
    }
}

/// The path of a destination's endpoint; an id that cannot be one must not become another path.
fn path(id: &str, rest: &str) -> Result<String, CliError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if id.is_empty() || !id.bytes().all(allowed) {
        return Err(CliError::said("ID: not the id of a destination, which has a-z 0-9 and hyphens; see `desist destination list`"));
    }
    Ok(format!("/v1/destinations/{id}{rest}"))
}

/// One line about a destination.
pub fn line(view: &DestinationView) -> String {
    format!("{:<20} {}", view.id, words(view))
}

fn words(view: &DestinationView) -> String {
    let mut parts = vec![view.state.replace('_', " ")];
    parts.extend(view.until.as_ref().map(|until| format!("tries at {until}")));
    parts.extend(view.missing.as_ref().map(|missing| format!("waits: {missing}")));
    parts.extend(view.oldest_due.as_ref().map(|due| format!("oldest due {due}")));
    if view.parked > 0 {
        parts.push(format!("{} parked", view.parked));
    }
    if view.dead > 0 {
        parts.push(format!("{} dead", view.dead));
    }
    if view.absent > 0 {
        parts.push(format!("{} not there", view.absent));
    }
    parts.push(view.last_success.as_ref().map_or_else(|| "nothing sent yet".to_owned(), |last| format!("last success {last}")));
    parts.extend(view.next.as_ref().map(|next| format!("next {next}")));
    parts.extend(view.through.map(|through| format!("told by hand up to {through}")));
    parts.join(", ")
}

fn finding(views: &[DestinationView]) -> Finding {
    if views.iter().all(|view| view.alarms.is_empty()) { Finding::Yes } else { Finding::No }
}

fn list(store: &StoreArgs, output: OutputArgs) -> Result<Finding, CliError> {
    let answer: DestinationsAnswer = Local::connect(store)?.call(Method::GET, "/v1/destinations", None::<&()>)??;
    if output.json {
        print_json(&answer)?;
    } else if answer.destinations.is_empty() {
        say("there is no destination; add [[destinations]] to desist.toml");
    }
    for view in answer.destinations.iter().filter(|_| !output.json) {
        say(&line(view));
        for alarm in &view.alarms {
            say(&format!("  ALARM {} since {}", alarm.kind, alarm.since));
        }
    }
    Ok(finding(&answer.destinations))
}

fn show(one: &One) -> Result<Finding, CliError> {
    let view: DestinationView = Local::connect(&one.store)?.call(Method::GET, &path(&one.id, "")?, None::<&()>)??;
    if one.output.json {
        print_json(&view)?;
        return Ok(finding(&[view]));
    }
    let verified = if view.verified { "" } else { ", UNVERIFIED: never run against the destination" };
    say(&format!("{} ({}, connector {}{verified})", view.id, view.class.replace('_', " "), view.connector));
    say(&format!("  state     {}", words(&view)));
    say(&format!("  purposes  {}", view.purposes.join(", ")));
    say(&format!("  enforced  when {}; its connector can reach {}", view.required, view.ceiling));
    say(&format!("  lane      {} changes behind, {} calls under way, {} wait for jobs", view.behind, view.in_flight, view.pending));
    for (name, text) in [("owner", &view.owner), ("task", &view.task)] {
        if let Some(text) = text {
            say(&format!("  {name:<9} {text}"));
        }
    }
    for alarm in &view.alarms {
        say(&format!("  ALARM     {} since {}", alarm.kind, alarm.since));
    }
    Ok(finding(&[view]))
}

fn parked(one: &One) -> Result<Finding, CliError> {
    let server = Local::connect(&one.store)?;
    let (mut after, mut all) = (String::new(), Vec::new());
    loop {
        let page: ParkedAnswer = server.call(Method::GET, &path(&one.id, &format!("/parked?limit=1000{after}"))?, None::<&()>)??;
        all.extend(page.parked);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    if one.output.json {
        print_json(&serde_json::json!({ "parked": all }))?;
    } else if all.is_empty() {
        say("nobody is parked");
    }
    for parked in all.iter().filter(|_| !one.output.json) {
        let code = parked.code.as_ref().map_or(String::new(), |code| format!(" ({code})"));
        let next = parked.next.as_ref().map_or("dead".to_owned(), |next| format!("next try {next}"));
        let due = parked.due.as_ref().map_or(String::new(), |due| format!(", due {due}"));
        say(&format!("{:<10} {}{code}, {} attempts, {next}{due}", parked.target, parked.reason.replace('_', " "), parked.attempts));
    }
    Ok(if all.is_empty() { Finding::Yes } else { Finding::No })
}

fn replay(one: &One, target: Option<String>, from: Option<u64>, to: Option<u64>, all: bool) -> Result<Finding, CliError> {
    if target.as_ref().is_some_and(|target| target_of(target).is_none()) {
        return Err(CliError::said("--target: not a target; write it as `desist destination parked` shows it, such as s12"));
    }
    if target.is_none() && from.is_none() && !all {
        return Err(CliError::said("say which: --target TARGET, --from SEQ --to SEQ, or --all"));
    }
    let body = ReplayBody { target, from, to, all: all.then_some(true) };
    let answer: ReplayAnswer = Local::connect(&one.store)?.call(Method::POST, &path(&one.id, "/replay")?, Some(&body))??;
    if one.output.json {
        print_json(&answer)?;
    } else {
        say(&format!("{} tried again", answer.replayed));
    }
    Ok(Finding::Yes)
}

fn act(one: &One, what: &str, said: &str) -> Result<Finding, CliError> {
    let () = Local::connect(&one.store)?.call(Method::POST, &path(&one.id, &format!("/{what}"))?, None::<&()>)??;
    if one.output.json {
        print_json(&serde_json::json!({ "id": one.id, "done": what }))?;
    } else {
        say(&format!("{} {said}", one.id));
    }
    Ok(Finding::Yes)
}

fn done(one: &One, through: u64, by: String, evidence: Option<&Path>) -> Result<Finding, CliError> {
    let evidence = match evidence {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(CliError::io(format!("--evidence: {}", file.display())))?;
            if text.len() > EVIDENCE_BYTES_MAX {
                return Err(CliError::said(format!(
                    "--evidence: more than {EVIDENCE_BYTES_MAX} bytes; give a file that says where it is found"
                )));
            }
            Some(text)
        }
        None => None,
    };
    let body = DoneBody { through, by, evidence };
    let () = Local::connect(&one.store)?.call(Method::POST, &path(&one.id, "/done")?, Some(&body))??;
    if one.output.json {
        print_json(&serde_json::json!({ "id": one.id, "through": through }))?;
    } else {
        say(&format!("recorded: {} was told of everything up to entry {through}", one.id));
    }
    Ok(Finding::Yes)
}

fn tasks(one: &One, file: Option<&Path>) -> Result<Finding, CliError> {
    let server = Local::connect_to_server(&one.store.data)?;
    path(&one.id, "")?;
    let mut csv = file.map(Csv::create).transpose()?;
    let (mut people, mut due, mut upto, mut after): (usize, Option<String>, u64, u64) = (0, None, 0, 0);
    let last = loop {
        let body = TasksBody { id: one.id.clone(), after };
        let page: TasksAnswer = server.call(Method::POST, "/control/tasks", Some(&body))??;
        people += page.people;
        upto = upto.max(page.upto);
        due = due.into_iter().chain(page.due.clone()).min();
        if let Some(csv) = &mut csv {
            page.rows.iter().try_for_each(|row| csv.row(row))?;
        }
        match page.next {
            Some(next) => after = next,
            None => break page,
        }
    };
    if let Some(csv) = csv {
        csv.finish()?;
    }
    if one.output.json {
        print_json(&serde_json::json!({ "people": people, "due": due, "through": upto, "owner": last.owner, "task": last.task }))?;
    } else if people == 0 {
        say("nothing has to be told");
    } else {
        say(&format!("{people} people have to be told of{}", due.map_or(String::new(), |due| format!(", the first by {due}"))));
        for (name, text) in [("who", &last.owner), ("what", &last.task)] {
            if let Some(text) = text {
                say(&format!("  {name:<8} {text}"));
            }
        }
        if let Some(file) = file {
            say(&format!("  file     {} holds personal data; delete it once they are told", file.display()));
        }
        say(&format!("  then     desist destination done {} --through {upto} --by NAME", one.id));
    }
    Ok(if people == 0 { Finding::Yes } else { Finding::No })
}

/// A new file that its owner alone can read.
struct Csv {
    file: std::io::BufWriter<std::fs::File>,
    name: String,
}

impl Csv {
    fn create(path: &Path) -> Result<Self, CliError> {
        let name = format!("--output: {}", path.display());
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(CliError::io(&name))?;
        let mut csv = Self { file: std::io::BufWriter::new(file), name };
        csv.write("kind,value,sha256,status,purposes\n")?;
        Ok(csv)
    }

    fn write(&mut self, text: &str) -> Result<(), CliError> {
        self.file.write_all(text.as_bytes()).map_err(CliError::io(&self.name))
    }

    fn row(&mut self, row: &TaskRow) -> Result<(), CliError> {
        let fields = [row.kind.name(), row.value.as_deref().unwrap_or_default(), &row.sha256, &row.status, &row.purposes.join(" ")];
        self.write(&(fields.map(field).join(",") + "\n"))
    }

    fn finish(mut self) -> Result<(), CliError> {
        self.file.flush().map_err(CliError::io(&self.name))?;
        self.file.get_ref().sync_all().map_err(CliError::io(&self.name))
    }
}

/// A field as RFC 4180 has it. A spreadsheet takes what begins like a formula for one, so that gets an apostrophe in front.
fn field(text: &str) -> String {
    let text = if text.starts_with(['=', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_file_are_quoted_and_no_formulas() {
        assert_eq!(field("a@b.example"), "a@b.example");
        assert_eq!(field("+12125550123"), "+12125550123");
        assert_eq!(field("a,\"b\"\nc"), "\"a,\"\"b\"\"\nc\"");
        assert_eq!(field("=1+1"), "'=1+1");
    }
}
