//! A manifest that was read and checked: what is declared, with its templates and expressions ready to be used.

use std::collections::BTreeMap;

use desist_core::identifier::Kind;
use serde::Deserialize;
use toml::de::{DeTable, Deserializer};

use crate::declared::{Ceiling, Declared, Effect, Method, On, Unit};
use crate::expression::{Expression, Pointer};
use crate::limits::{MANIFEST_BYTES_MAX, PROBLEMS_MAX};
use crate::lint::Compiler;
use crate::pipe::Pipe;
use crate::problem::{Problem, shown};
use crate::shape;
use crate::template::{Node, Text};

/// The shape of a destination's API, checked.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub(crate) declared: Declared,
    pub(crate) hosts: Vec<Text>,
    pub(crate) ids: BTreeMap<Kind, IdRule>,
    pub(crate) lookup: Option<Lookup>,
    pub(crate) ops: Vec<Op>,
    pub(crate) verify: Option<Verify>,
    pub(crate) probe: Option<Probe>,
    pub(crate) setup: Vec<Setup>,
    pub(crate) limits: Pace,
}

#[derive(Clone, Debug)]
pub(crate) struct IdRule {
    pub variants: Vec<Pipe>,
    pub emit: Option<Node>,
    pub hashed: Option<Node>,
    pub name: String,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub method: Method,
    pub host: usize,
    pub path: Text,
    pub query: Vec<(String, Text)>,
    pub headers: Vec<(String, Text)>,
    pub body: Option<Node>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Errors {
    pub retry_status: Vec<u16>,
    pub shrink_status: Vec<u16>,
    pub code_at: Option<Pointer>,
    pub retry: Vec<String>,
    pub auth: Vec<String>,
    pub throttle: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    pub request: Request,
    pub unit: Unit,
    pub rows: Pointer,
    pub emit: Vec<(String, Pointer)>,
    pub absent_when: Option<Expression>,
    pub absent_status: Vec<u16>,
    pub more_when: Option<Expression>,
    pub errors: Errors,
}

#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub on: On,
    pub purposes: Vec<String>,
    pub effect: Effect,
    pub ceiling: Ceiling,
    pub unit: Unit,
    /// Absent with other transports than HTTP.
    pub request: Option<Request>,
    pub item: Option<Node>,
    pub group: Option<Node>,
    pub grouped: bool,
    pub each: Option<String>,
    /// The one kind that it is about, if it is about one.
    pub only: Option<Kind>,
    /// The kinds without which it cannot say who is meant.
    pub needs: Vec<Kind>,
    pub takes_ids: bool,
    pub result: OpResult,
    pub errors: Errors,
    pub poll: Option<Poll>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct OpResult {
    pub dialect: Dialect,
    pub ok_status: Vec<u16>,
    pub absent_status: Vec<u16>,
    pub absent: Option<Expression>,
    pub duplicate: Option<Expression>,
    pub reason: Option<Pointer>,
}

#[derive(Clone, Debug, Default)]
pub(crate) enum Dialect {
    #[default]
    Status,
    BodyFlag {
        ok: Expression,
        failed: Option<Expression>,
    },
    Index {
        rows: Pointer,
        ok: Expression,
    },
    ListByKey {
        rows: Pointer,
        key: Pointer,
        by: By,
        ok: Option<Expression>,
    },
    Count {
        failed: Pointer,
    },
    Job {
        key: Pointer,
    },
    Blind,
}

/// How a failed row names its item.
#[derive(Clone, Debug)]
pub(crate) enum By {
    Position(u32),
    Item(Pointer),
}

#[derive(Clone, Debug)]
pub(crate) struct Poll {
    pub request: Request,
    pub done: Expression,
    pub failed: Option<Expression>,
    pub reason: Option<Pointer>,
    pub every: u64,
    pub give_up: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Verify {
    pub request: Request,
    pub unit: Unit,
    pub clean_when: Expression,
    pub absent_when: Option<Expression>,
    pub absent_status: Vec<u16>,
    pub errors: Errors,
}

#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub request: Request,
    pub ok: Option<Expression>,
    pub ok_status: Vec<u16>,
    pub errors: Errors,
}

#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub name: String,
    pub check: Request,
    pub exists_when: Expression,
    pub errors: Errors,
    pub create: Request,
}

/// How much and how fast, with times in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Most items in one call.
    pub batch_items: usize,
    /// Most bytes in one body.
    pub batch_bytes: usize,
    /// Most calls at the same time.
    pub concurrency: u32,
    /// Most calls in a time: how many, and in how many seconds. All of them hold.
    pub rates: Vec<(u32, u64)>,
    /// How long a call that is not full may wait for more.
    pub linger_seconds: u64,
    /// How long a result of the look-up may be used again.
    pub lookup_cache_seconds: u64,
    pub(crate) ids_per_item: usize,
}

/// What one op does, without its templates.
#[derive(Clone, Copy, Debug)]
pub struct OpView<'m> {
    /// Its place among the ops, which calls name it by.
    pub index: usize,
    /// The choice that it carries out.
    pub on: On,
    /// The purposes that it implements.
    pub purposes: &'m [String],
    /// What becomes of the person.
    pub effect: Effect,
    /// The most that a good answer of this API proves.
    pub ceiling: Ceiling,
    /// What one item stands for. With [`Unit::Row`] a person has to be looked up first.
    pub unit: Unit,
    /// Seconds between two questions about a job, and after how many to give up.
    pub poll: Option<(u64, u64)>,
}

impl Manifest {
    /// Reads a manifest. Problems name the file as `file`.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Problem>> {
        let whole = |message: String, hint: &str| Problem {
            file: file.to_owned(),
            line: 0,
            column: 0,
            path: String::new(),
            message,
            hint: hint.to_owned(),
        };
        if text.len() > MANIFEST_BYTES_MAX {
            return Err(vec![whole(format!("has more than {MANIFEST_BYTES_MAX} bytes"), "is it the right file?")]);
        }
        let source = Source { file, text };
        let (doc, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let problem = |error: &toml::de::Error| {
                let at = error.span().map_or(0, |span| span.start);
                source.problem(
                    at,
                    &[],
                    format!("not valid TOML: {}", error.message()),
                    "see https://toml.io for how to write it".to_owned(),
                )
            };
            return Err(errors.iter().take(PROBLEMS_MAX).map(problem).collect());
        }
        let found = shape::check(&doc, text);
        if !found.is_empty() {
            let problems = found.into_iter().take(PROBLEMS_MAX);
            return Err(problems.map(|found| source.problem(found.span.start, &found.path, found.message, found.hint)).collect());
        }
        let declared = Declared::deserialize(Deserializer::from(doc.clone())).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let problem = source.problem(at, &[], shown(error.message()), "see docs/connector-spec.md for what belongs here".to_owned());
            vec![problem]
        })?;
        Compiler::new(&declared, doc.get_ref(), source).run()
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.declared.connector.id
    }

    /// What is written in it.
    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// How much and how fast.
    pub fn pace(&self) -> &Pace {
        &self.limits
    }

    /// What it can tell.
    pub fn ops(&self) -> impl Iterator<Item = OpView<'_>> {
        self.ops.iter().enumerate().map(|(index, op)| OpView {
            index,
            on: op.on,
            purposes: &op.purposes,
            effect: op.effect,
            ceiling: op.ceiling,
            unit: op.unit,
            poll: op.poll.as_ref().map(|poll| (poll.every, poll.give_up)),
        })
    }

    /// Whether a person has to be looked up before the op, or before the verification.
    pub fn has_lookup(&self) -> bool {
        self.lookup.is_some()
    }

    /// Whether it can read back what it told, and what one question is about.
    pub fn verify_unit(&self) -> Option<Unit> {
        self.verify.as_ref().map(|verify| verify.unit)
    }

    /// The kinds of identifiers that the destination takes.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.ids.keys().copied()
    }
}

/// A file and its text, to say where something is.
#[derive(Clone, Copy)]
pub(crate) struct Source<'t> {
    pub file: &'t str,
    pub text: &'t str,
}

impl Source<'_> {
    pub fn problem(&self, at: usize, path: &[String], message: String, hint: String) -> Problem {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        Problem {
            file: self.file.to_owned(),
            line: before.split(|byte| *byte == b'\n').count(),
            column: String::from_utf8_lossy(&before[start..]).chars().count() + 1,
            path: path.iter().map(|step| shown(step).trim_matches('"').to_owned()).collect::<Vec<_>>().join("."),
            message,
            hint,
        }
    }
}
