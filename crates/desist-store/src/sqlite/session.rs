//! The operations of one transaction: all the SQL there is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use desist_core::decision::Verdict;
use desist_core::fact::{Digest, IdRef, RequestId};
use desist_core::graph::{Changes, IdentifierRow, Party, Records, SubjectRow};
use desist_core::identifier::Kind;
use desist_core::lane::{Delta, Head, News, Saved, Target};
use desist_core::lookup::LookupKey;
use desist_core::mark::{IdentifierNo, Line, SubjectNo};
use desist_core::purpose::{Model, PurposeSet};
use desist_core::rules::Counters;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Params, Row as SqlRow, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{
    ChangeRow, Coordinator, ImportRow, KeyRow, Owner, Page, PrivacyRow, ProfileRow, REMEMBER_SECONDS, Read, Remembered, RequestRow, Row,
    Sealed, ServiceRow, Status, StoreError, SubscriptionRow, Subscriptions, TimeColumn, Totals, Write,
};

/// One transaction on one connection.
pub(super) struct Session<'c> {
    connection: &'c Connection,
    hours: Option<BTreeSet<i64>>,
    shredded: bool,
}

/// A unit variant or an id, by the name it has in the log.
struct Name<T>(T);

impl<T: Serialize> ToSql for Name<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match serde_json::to_value(&self.0) {
            Ok(serde_json::Value::String(name)) => Ok(name.into()),
            _ => unreachable!("names serialize as strings"),
        }
    }
}

impl<T: DeserializeOwned> FromSql for Name<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(value.as_str()?);
        // The cause is left out here and below: it could repeat what is stored.
        T::deserialize(text).map(Self).map_err(|_| FromSqlError::InvalidType)
    }
}

/// A list, as JSON.
struct Json<T>(Vec<T>);

impl<T: Serialize> ToSql for Json<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(serde_json::to_string(&self.0).expect("lists of numbers and names").into())
    }
}

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map(Self).map_err(|_| FromSqlError::InvalidType)
    }
}

struct Marks(Line);

impl FromSql for Marks {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Line::from_json(value.as_str()?).map(Self).ok_or(FromSqlError::InvalidType)
    }
}

struct KindCode(Kind);

impl FromSql for KindCode {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        u8::column_result(value).ok().and_then(Kind::from_code).map(Self).ok_or(FromSqlError::InvalidType)
    }
}

/// A mask, of which `SQLite` sees the bits as a signed number.
struct Mask(PurposeSet);

impl ToSql for Mask {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((self.0.0 as i64).into())
    }
}

impl FromSql for Mask {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self(PurposeSet(value.as_i64()? as u64)))
    }
}

const VERDICT: &str = "denied, linked, opted_in";
const REQUEST: &str = "id, receipt_hash, kind, status, channel, purposes, seq, acted_at, recorded_at, deadline, deadline_conventional, subject, \
                       identifiers, confirm_hash, unreached";

fn verdict(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<Verdict> {
    let mask = |at| row.get::<_, Mask>(at).map(|mask| mask.0);
    Ok(Verdict { denied: mask(at)?, linked: mask(at + 1)?, opted_in: mask(at + 2)? })
}

/// `kind, holders, shared, marks` from column `at`.
fn identifier(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<IdentifierRow> {
    Ok(IdentifierRow {
        kind: row.get::<_, KindCode>(at)?.0,
        holders: row.get(at + 1)?,
        shared: row.get(at + 2)?,
        line: row.get::<_, Marks>(at + 3)?.0,
    })
}

fn request(row: &SqlRow<'_>) -> rusqlite::Result<RequestRow> {
    Ok(RequestRow {
        id: row.get::<_, Name<_>>(0)?.0,
        receipt_hash: row.get(1)?,
        kind: row.get::<_, Name<_>>(2)?.0,
        status: row.get::<_, Name<_>>(3)?.0,
        channel: row.get::<_, Name<_>>(4)?.0,
        purposes: row.get::<_, Mask>(5)?.0,
        seq: row.get(6)?,
        acted_at: row.get(7)?,
        recorded_at: row.get(8)?,
        deadline: row.get(9)?,
        deadline_conventional: row.get(10)?,
        subject: row.get::<_, Option<u64>>(11)?.map(SubjectNo),
        identifiers: row.get::<_, Json<_>>(12)?.0,
        confirm_hash: row.get(13)?,
        unreached: row.get::<_, Json<_>>(14)?.0,
    })
}

fn profile(row: &SqlRow<'_>) -> rusqlite::Result<ProfileRow> {
    Ok(ProfileRow { created_ms: row.get(0)?, modified_ms: row.get(1)?, opt_out_ended_ms: row.get(2)? })
}

const SERVICE: &str = "no, pkey, name, attributes, created_ms, modified_ms";
const SUBSCRIPTION: &str = "no, pkey, subject, service, created_ms";
const PRIVACY_REQUEST: &str = "no, pkey, name_hash, type, regulation, status, created_ms, modified_ms";

fn service(row: &SqlRow<'_>) -> rusqlite::Result<ServiceRow> {
    Ok(ServiceRow {
        no: row.get(0)?,
        pkey: row.get(1)?,
        name: row.get(2)?,
        attributes: row.get(3)?,
        created_ms: row.get(4)?,
        modified_ms: row.get(5)?,
    })
}

fn subscription(row: &SqlRow<'_>) -> rusqlite::Result<SubscriptionRow> {
    Ok(SubscriptionRow {
        no: row.get(0)?,
        pkey: row.get(1)?,
        subject: SubjectNo(row.get(2)?),
        service: row.get(3)?,
        created_ms: row.get(4)?,
    })
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("books have string keys and no failing members")
}

fn change(row: &SqlRow<'_>) -> rusqlite::Result<ChangeRow> {
    Ok(ChangeRow { no: row.get(0)?, party: Party::from_code(row.get(1)?), seq: row.get(2)? })
}

fn privacy_request(row: &SqlRow<'_>) -> rusqlite::Result<PrivacyRow> {
    Ok(PrivacyRow {
        no: row.get(0)?,
        pkey: row.get(1)?,
        name_hash: row.get(2)?,
        kind: row.get::<_, Name<_>>(3)?.0,
        regulation: row.get(4)?,
        status: row.get::<_, Name<_>>(5)?.0,
        created_ms: row.get(6)?,
        modified_ms: row.get(7)?,
    })
}

/// The column and the number that select subscriptions.
fn subscriptions_sql(which: Subscriptions) -> (&'static str, u64) {
    match which {
        Subscriptions::Of(subject) => ("subject", subject.0),
        Subscriptions::To(service) => ("service", service),
    }
}

/// The least value above every text that begins with `prefix`: a text, or else a blob, which `SQLite`
/// sorts after all texts.
fn above(prefix: &str) -> ToSqlOutput<'static> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // Texts compare as their code points do, among which the surrogates are missing.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            text.push(next);
            return text.into();
        }
    }
    ToSqlOutput::Owned(rusqlite::types::Value::Blob(Vec::new()))
}

/// The kind of a vault item's owner, and its number or id.
fn owner_sql(owner: Owner) -> (&'static str, ToSqlOutput<'static>) {
    match owner {
        Owner::Profile(subject) => ("profile", (subject.0 as i64).into()),
        Owner::Request(id) => ("request", id.to_string().into()),
        Owner::PrivacyRequest(no) => ("privacy_request", (no as i64).into()),
        Owner::ByHand(seq) => ("by_hand", (seq as i64).into()),
        Owner::Identifier(no) => ("identifier", (no.0 as i64).into()),
    }
}

impl<'c> Session<'c> {
    pub(super) fn new(connection: &'c Connection, hours: Option<BTreeSet<i64>>) -> Self {
        Self { connection, hours, shredded: false }
    }

    /// Which idempotency tables there are now, if it was asked, and whether something was shredded.
    pub(super) fn end(self) -> (Option<BTreeSet<i64>>, bool) {
        (self.hours, self.shredded)
    }

    fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        row: impl FnOnce(&SqlRow<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.connection.prepare_cached(sql)?.query_row(params, row).optional()?)
    }

    fn all<T>(&self, sql: &str, params: impl Params, row: impl FnMut(&SqlRow<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>, StoreError> {
        Ok(self.connection.prepare_cached(sql)?.query_map(params, row)?.collect::<Result<_, _>>()?)
    }

    fn run(&self, sql: &str, params: impl Params) -> Result<usize, StoreError> {
        Ok(self.connection.prepare_cached(sql)?.execute(params)?)
    }

    fn lane_head(&self, destination: u32) -> Result<Option<(u64, Head)>, StoreError> {
        let found = self.one("SELECT epoch, head FROM lane WHERE destination = ?", [destination], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?))
        })?;
        let Some((epoch, head)) = found else { return Ok(None) };
        let head = serde_json::from_str(&head).map_err(|error| StoreError::Damaged(format!("lane {destination}: {error}")))?;
        Ok(Some((epoch, head)))
    }

    /// Runs an `UPDATE` of one row, which must exist.
    fn update(&self, sql: &str, no: IdentifierNo, params: impl Params) -> Result<(), StoreError> {
        match self.run(sql, params)? {
            1 => Ok(()),
            _ => Err(StoreError::Damaged(format!("identifier {} has no row", no.0))),
        }
    }

    fn hours(&mut self) -> Result<&mut BTreeSet<i64>, StoreError> {
        if self.hours.is_none() {
            let names: Vec<String> =
                self.all("SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'idempotency_*'", [], |row| row.get(0))?;
            self.hours = Some(names.iter().filter_map(|name| name.strip_prefix("idempotency_")?.parse().ok()).collect());
        }
        Ok(self.hours.as_mut().expect("read above"))
    }

    /// Passes each row on, or what is wrong with it; column `number` says which row it is.
    fn scan_table(
        &self,
        table: &str,
        number: usize,
        sql: &str,
        each: &mut dyn FnMut(Row),
        decode: impl Fn(&SqlRow<'_>) -> rusqlite::Result<Row>,
    ) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(decode(row).unwrap_or_else(|error| {
                let no = row.get::<_, i64>(number).map_or_else(|_| String::new(), |no| format!(" {no}"));
                Row::Broken(format!("{table}{no}: {error}"))
            }));
        }
        Ok(())
    }
}

impl Records for Session<'_> {
    type Error = StoreError;

    fn find(&mut self, key: &LookupKey) -> Result<Option<IdentifierNo>, StoreError> {
        self.one("SELECT no FROM identifier WHERE key = ?", [key.0], |row| row.get(0).map(IdentifierNo))
    }

    fn identifier(&mut self, no: IdentifierNo) -> Result<Option<IdentifierRow>, StoreError> {
        self.one("SELECT kind, holders, shared, marks FROM identifier WHERE no = ?", [no.0], |row| identifier(row, 0))
    }

    fn subject(&mut self, no: SubjectNo) -> Result<Option<SubjectRow>, StoreError> {
        self.one("SELECT marks, held FROM subject WHERE no = ?", [no.0], |row| {
            Ok(SubjectRow { line: row.get::<_, Marks>(0)?.0, held: row.get(1)? })
        })
    }

    fn holders(&mut self, no: IdentifierNo) -> Result<Vec<SubjectNo>, StoreError> {
        self.all("SELECT subject FROM hold WHERE identifier = ? ORDER BY subject", [no.0], |row| row.get(0).map(SubjectNo))
    }

    fn held(&mut self, no: SubjectNo) -> Result<Vec<IdentifierNo>, StoreError> {
        self.all("SELECT identifier FROM hold WHERE subject = ? ORDER BY identifier", [no.0], |row| row.get(0).map(IdentifierNo))
    }

    fn holds(&mut self, subject: SubjectNo, identifier: IdentifierNo) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM hold WHERE subject = ? AND identifier = ?";
        Ok(self.one(sql, [subject.0, identifier.0], |_| Ok(()))?.is_some())
    }
}

impl Read for Session<'_> {
    fn coordinator(&mut self) -> Result<Coordinator, StoreError> {
        let found = self.one("SELECT entries, subjects, identifiers, changes, frontier FROM coordinator", [], |row| {
            let counters = Counters { entries: row.get(0)?, subjects: row.get(1)?, identifiers: row.get(2)?, changes: row.get(3)? };
            Ok(Coordinator { counters, frontier: row.get(4)? })
        })?;
        found.ok_or_else(|| StoreError::Damaged("coordinator: its row is missing".to_owned()))
    }

    fn meta(&mut self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.one("SELECT value FROM meta WHERE name = ?", [name], |row| row.get(0))
    }

    fn changes(&mut self, after: u64, limit: usize) -> Result<Vec<ChangeRow>, StoreError> {
        let sql = "SELECT no, party, seq FROM change WHERE no > ? ORDER BY no LIMIT ?";
        self.all(sql, params![after, limit], change)
    }

    fn change_of(&mut self, party: Party) -> Result<Option<ChangeRow>, StoreError> {
        let (sql, row) = match party {
            Party::Subject(SubjectNo(row)) => {
                ("SELECT no, party, seq FROM change WHERE no = (SELECT change FROM subject WHERE no = ?)", row)
            }
            Party::Identifier(IdentifierNo(row)) => {
                ("SELECT no, party, seq FROM change WHERE no = (SELECT change FROM identifier WHERE no = ?)", row)
            }
        };
        self.one(sql, [row], change)
    }

    fn change_upto(&mut self, no: u64) -> Result<Option<ChangeRow>, StoreError> {
        self.one("SELECT no, party, seq FROM change WHERE no <= ? ORDER BY no DESC LIMIT 1", [no], change)
    }

    fn entries(&mut self, seqs: Range<u64>) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let sql = "SELECT seq, bytes FROM entry WHERE seq >= ? AND seq < ? ORDER BY seq";
        self.all(sql, [seqs.start, seqs.end].map(|seq| i64::try_from(seq).unwrap_or(i64::MAX)), |row| {
            Ok((row.get(0)?, row.get_ref(1)?.as_bytes()?.to_vec()))
        })
    }

    fn evidence(&mut self, seqs: Range<u64>, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let [from, to] = [seqs.start, seqs.end].map(|seq| i64::try_from(seq).unwrap_or(i64::MAX));
        let sql = "SELECT seq, records FROM evidence WHERE seq >= ? AND seq < ? ORDER BY seq LIMIT ?";
        self.all(sql, params![from, to, i64::try_from(limit).unwrap_or(i64::MAX)], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    fn tile(&mut self, level: u8, no: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.one("SELECT hashes FROM tile WHERE level = ? AND no = ?", params![level, no], |row| row.get(0))
    }

    fn each_verdict(&mut self, each: &mut dyn FnMut(LookupKey, Kind, Verdict)) -> Result<(), StoreError> {
        let sql = format!("SELECT key, kind, {VERDICT} FROM identifier WHERE denied <> 0 OR linked <> 0 OR opted_in <> 0");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(LookupKey(row.get(0)?), row.get::<_, KindCode>(1)?.0, verdict(row, 2)?);
        }
        Ok(())
    }

    fn verdict_of(&mut self, no: IdentifierNo) -> Result<Option<(LookupKey, Kind, Verdict)>, StoreError> {
        self.one("SELECT key, kind, denied, linked, opted_in FROM identifier WHERE no = ?", [no.0], |row| {
            Ok((LookupKey(row.get(0)?), row.get::<_, KindCode>(1)?.0, verdict(row, 2)?))
        })
    }

    fn destinations(&mut self) -> Result<Vec<(u32, String)>, StoreError> {
        self.all("SELECT no, id FROM destination ORDER BY no", [], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    fn lane(&mut self, destination: u32) -> Result<Option<(u64, Saved)>, StoreError> {
        let Some((epoch, head)) = self.lane_head(destination)? else { return Ok(None) };
        let mut saved = Saved { head, ..Saved::default() };
        let sql = "SELECT kind, key, value FROM lane_exception WHERE destination = ?";
        let rows = self.all(sql, [destination], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?, row.get::<_, String>(2)?)))?;
        for (kind, key, value) in rows {
            let unreadable = |error| StoreError::Damaged(format!("lane {destination}: {kind} {key}: {error}"));
            match kind.as_str() {
                "parked" => {
                    saved.parked.insert(Target(key), serde_json::from_str(&value).map_err(unreadable)?);
                }
                "job" => {
                    saved.jobs.insert(key, serde_json::from_str(&value).map_err(unreadable)?);
                }
                "levels" => saved.levels.put(key, Some(serde_json::from_str(&value).map_err(unreadable)?)),
                _ => {
                    saved.allows.insert(Target(key));
                }
            }
        }
        Ok(Some((epoch, saved)))
    }

    fn purposes(&mut self) -> Result<Vec<(u32, String, Model)>, StoreError> {
        self.all("SELECT bit, name, model FROM purpose ORDER BY bit", [], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, Name<_>>(2)?.0)))
    }

    fn keys(&mut self) -> Result<Vec<KeyRow>, StoreError> {
        self.all("SELECT no, name, role, key_hash, token_hash, created_at, revoked_at FROM api_key ORDER BY no", [], |row| {
            Ok(KeyRow {
                no: row.get(0)?,
                name: row.get(1)?,
                role: row.get::<_, Name<_>>(2)?.0,
                key_hash: row.get(3)?,
                token_hash: row.get(4)?,
                created_at: row.get(5)?,
                revoked_at: row.get(6)?,
            })
        })
    }

    fn request(&mut self, id: RequestId) -> Result<Option<RequestRow>, StoreError> {
        self.one(&format!("SELECT {REQUEST} FROM request WHERE id = ?"), [Name(id)], request)
    }

    fn request_by_receipt(&mut self, receipt_hash: &[u8; 32]) -> Result<Option<RequestRow>, StoreError> {
        self.one(&format!("SELECT {REQUEST} FROM request WHERE receipt_hash = ?"), [receipt_hash], request)
    }

    fn unreached(&mut self, limit: usize) -> Result<Vec<RequestRow>, StoreError> {
        let sql = format!("SELECT {REQUEST} FROM request WHERE unreached <> '[]' ORDER BY seq LIMIT ?");
        self.all(&sql, [i64::try_from(limit).unwrap_or(i64::MAX)], request)
    }

    fn vault_get(&mut self, owner: Owner) -> Result<Option<Sealed>, StoreError> {
        self.one("SELECT wrapped_key, ciphertext FROM vault WHERE owner_kind = ? AND owner = ?", owner_sql(owner), |row| {
            Ok(Sealed { wrapped_key: row.get(0)?, ciphertext: row.get(1)? })
        })
    }

    fn vault_identifiers(&mut self, after: IdentifierNo, limit: usize) -> Result<Vec<IdentifierNo>, StoreError> {
        let sql = "SELECT owner FROM vault WHERE owner_kind = 'identifier' AND owner > ? ORDER BY owner LIMIT ?";
        self.all(sql, params![after.0, limit], |row| row.get(0).map(IdentifierNo))
    }

    fn profile(&mut self, subject: SubjectNo) -> Result<Option<ProfileRow>, StoreError> {
        self.one("SELECT created_ms, modified_ms, opt_out_ended_ms FROM profile WHERE subject = ?", [subject.0], profile)
    }

    fn profiles(&mut self, after: SubjectNo, limit: usize) -> Result<Vec<SubjectNo>, StoreError> {
        let sql = "SELECT subject FROM profile WHERE subject > ? ORDER BY subject LIMIT ?";
        self.all(sql, params![after.0, limit], |row| row.get(0).map(SubjectNo))
    }

    fn profile_count(&mut self) -> Result<u64, StoreError> {
        Ok(self.one("SELECT count(*) FROM profile", [], |row| row.get(0))?.unwrap_or_default())
    }

    fn profiles_by_time(&mut self, column: TimeColumn, page: Page<i64>) -> Result<Vec<(i64, SubjectNo)>, StoreError> {
        let column = match column {
            TimeColumn::Created => "created_ms",
            TimeColumn::Modified => "modified_ms",
        };
        let (above, order, start) = if page.descending { ("<", "DESC", i64::MAX) } else { (">", "ASC", i64::MIN) };
        let (value, no) = page.after.unwrap_or((start, if page.descending { i64::MAX as u64 } else { 0 }));
        let sql = format!(
            "SELECT {column}, subject FROM profile WHERE ({column}, subject) {above} (?, ?) ORDER BY {column} {order}, subject {order} LIMIT ?"
        );
        self.all(&sql, params![value, no, page.limit], |row| Ok((row.get(0)?, SubjectNo(row.get(1)?))))
    }

    fn denied_profiles(&mut self, after: IdentifierNo, limit: usize) -> Result<Vec<(IdentifierNo, SubjectNo)>, StoreError> {
        // Keys of deleted profiles are held by nobody; they count for nothing in a page. Nothing passes
        // through a shared key, so that its verdict does not tell.
        let sql = "SELECT key.no, subject FROM (SELECT no FROM identifier WHERE kind = 4 AND ((denied | linked) & 1 <> 0 OR shared <> 0) AND no > ?
                   AND EXISTS (SELECT 1 FROM hold WHERE identifier = identifier.no) ORDER BY no LIMIT ?) AS key
                   JOIN hold ON hold.identifier = key.no ORDER BY key.no, subject";
        self.all(sql, params![after.0, limit], |row| Ok((IdentifierNo(row.get(0)?), SubjectNo(row.get(1)?))))
    }

    fn profile_texts(&mut self, field: &str, prefix: &str, page: Page<&str>) -> Result<Vec<(String, SubjectNo)>, StoreError> {
        let (value, no) = page.after.unwrap_or_default();
        let row = |row: &SqlRow<'_>| Ok((row.get(0)?, SubjectNo(row.get(1)?)));
        let select = "SELECT value, subject FROM profile_text WHERE field = ?";
        // One lower and one upper bound in each, for the index to seek.
        match (page.after.is_some(), page.descending) {
            (true, false) => {
                let sql = format!("{select} AND (value, subject) > (?, ?) AND value < ? ORDER BY value, subject LIMIT ?");
                self.all(&sql, params![field, value, no, above(prefix), page.limit], row)
            }
            (false, false) => {
                let sql = format!("{select} AND value >= ? AND value < ? ORDER BY value, subject LIMIT ?");
                self.all(&sql, params![field, prefix, above(prefix), page.limit], row)
            }
            (true, true) => {
                let sql = format!("{select} AND value >= ? AND (value, subject) < (?, ?) ORDER BY value DESC, subject DESC LIMIT ?");
                self.all(&sql, params![field, prefix, value, no, page.limit], row)
            }
            (false, true) => {
                let sql = format!("{select} AND value >= ? AND value < ? ORDER BY value DESC, subject DESC LIMIT ?");
                self.all(&sql, params![field, prefix, above(prefix), page.limit], row)
            }
        }
    }

    fn profile_text_count(&mut self, field: &str, prefix: &str) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM profile_text WHERE field = ? AND value >= ? AND value < ?";
        Ok(self.one(sql, params![field, prefix, above(prefix)], |row| row.get(0))?.unwrap_or_default())
    }

    fn services(&mut self) -> Result<Vec<ServiceRow>, StoreError> {
        self.all(&format!("SELECT {SERVICE} FROM service ORDER BY no"), [], service)
    }

    fn subscription(&mut self, pkey: &str) -> Result<Option<SubscriptionRow>, StoreError> {
        self.one(&format!("SELECT {SUBSCRIPTION} FROM subscription WHERE pkey = ?"), [pkey], subscription)
    }

    fn subscribed(&mut self, subject: SubjectNo, service: u64) -> Result<Option<SubscriptionRow>, StoreError> {
        let sql = format!("SELECT {SUBSCRIPTION} FROM subscription WHERE subject = ? AND service = ?");
        self.one(&sql, [subject.0, service], subscription)
    }

    fn subscriptions(&mut self, which: Subscriptions, after: u64, limit: usize) -> Result<Vec<SubscriptionRow>, StoreError> {
        let (column, value) = subscriptions_sql(which);
        let sql = format!("SELECT {SUBSCRIPTION} FROM subscription WHERE {column} = ? AND no > ? ORDER BY no LIMIT ?");
        self.all(&sql, params![value, after, limit], subscription)
    }

    fn subscription_count(&mut self, which: Subscriptions) -> Result<u64, StoreError> {
        let (column, value) = subscriptions_sql(which);
        let sql = format!("SELECT count(*) FROM subscription WHERE {column} = ?");
        Ok(self.one(&sql, [value], |row| row.get(0))?.unwrap_or_default())
    }

    fn privacy_request(&mut self, pkey: &str) -> Result<Option<PrivacyRow>, StoreError> {
        self.one(&format!("SELECT {PRIVACY_REQUEST} FROM privacy_request WHERE pkey = ?"), [pkey], privacy_request)
    }

    fn privacy_request_named(&mut self, name_hash: &[u8; 32]) -> Result<bool, StoreError> {
        Ok(self.one("SELECT 1 FROM privacy_request WHERE name_hash = ?", [name_hash], |_| Ok(()))?.is_some())
    }

    fn privacy_requests(&mut self, after: u64, limit: usize) -> Result<Vec<PrivacyRow>, StoreError> {
        let sql = format!("SELECT {PRIVACY_REQUEST} FROM privacy_request WHERE no > ? ORDER BY no LIMIT ?");
        self.all(&sql, params![after, limit], privacy_request)
    }

    fn privacy_request_count(&mut self) -> Result<u64, StoreError> {
        Ok(self.one("SELECT count(*) FROM privacy_request", [], |row| row.get(0))?.unwrap_or_default())
    }

    fn import(&mut self, import: &[u8; 32]) -> Result<Option<ImportRow>, StoreError> {
        self.one("SELECT rows, accepted, refused, finished FROM import WHERE id = ?", [Name(Digest(*import))], |row| {
            Ok(ImportRow { rows: row.get(0)?, accepted: row.get(1)?, refused: row.get(2)?, finished: row.get(3)? })
        })
    }

    fn remembered(&mut self, scope: &[u8; 32], since: i64) -> Result<Option<Remembered>, StoreError> {
        let hours: Vec<_> = self.hours()?.range(since.div_euclid(3600)..).rev().copied().collect();
        for hour in hours {
            let sql = format!("SELECT request_digest, answer FROM idempotency_{hour} WHERE scope = ? AND at >= ?");
            let found = self.one(&sql, params![scope, since], |row| Ok(Remembered { request_digest: row.get(0)?, answer: row.get(1)? }))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn totals(&mut self) -> Result<Totals, StoreError> {
        let count = |sql: &str| self.one(sql, [], |row| row.get(0)).map(Option::unwrap_or_default);
        let status = |status| {
            self.one("SELECT count(*) FROM request WHERE status = ?", [Name(status)], |row| row.get(0)).map(Option::unwrap_or_default)
        };
        Ok(Totals {
            requests: [status(Status::Received)?, status(Status::AwaitingConfirmation)?, status(Status::Confirmed)?],
            denied_identifiers: count("SELECT count(*) FROM identifier WHERE denied <> 0 OR linked <> 0")?,
            profiles: count("SELECT count(*) FROM profile")?,
            unreached: count("SELECT count(*) FROM request WHERE unreached <> '[]'")?,
        })
    }

    fn scan(&mut self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        for problem in self.all("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))? {
            if problem != "ok" {
                each(Row::Broken(format!("database: {problem}")));
            }
        }
        let sql = format!("SELECT no, kind, holders, shared, marks, {VERDICT}, key FROM identifier ORDER BY no");
        self.scan_table("identifier", 0, &sql, each, |row| {
            row.get::<_, [u8; 16]>(8)?;
            Ok(Row::Identifier(IdentifierNo(row.get(0)?), identifier(row, 1)?, verdict(row, 5)?))
        })?;
        self.scan_table("subject", 0, "SELECT no, marks, held FROM subject ORDER BY no", each, |row| {
            Ok(Row::Subject(SubjectNo(row.get(0)?), SubjectRow { line: row.get::<_, Marks>(1)?.0, held: row.get(2)? }))
        })?;
        self.scan_table("hold of subject", 0, "SELECT subject, identifier FROM hold ORDER BY subject, identifier", each, |row| {
            Ok(Row::Hold(SubjectNo(row.get(0)?), IdentifierNo(row.get(1)?)))
        })?;
        self.scan_table("change", 0, "SELECT no, party, seq FROM change ORDER BY no", each, |row| Ok(Row::Change(change(row)?)))?;
        for (table, bit) in [("subject", 0), ("identifier", 1)] {
            let sql = format!(
                "SELECT t.no FROM {table} t LEFT JOIN change c ON c.no = t.change WHERE t.change IS NOT NULL AND c.party IS NOT t.no * 2 + {bit}
                 UNION SELECT c.party / 2 FROM change c LEFT JOIN {table} t ON t.no = c.party / 2 WHERE c.party % 2 = {bit} AND t.change IS NOT c.no"
            );
            self.scan_table(table, 0, &sql, each, |row| {
                Ok(Row::Broken(format!("{table} {}: its change is another's", row.get::<_, i64>(0)?)))
            })?;
        }
        self.scan_table("request", 15, &format!("SELECT {REQUEST}, no FROM request ORDER BY no"), each, |row| {
            Ok(Row::Request(Box::new(request(row)?)))
        })?;
        self.scan_table(
            "profile",
            0,
            "SELECT subject, created_ms, modified_ms, opt_out_ended_ms FROM profile ORDER BY subject",
            each,
            |row| Ok(Row::Profile(SubjectNo(row.get(0)?))),
        )?;
        let sql = "SELECT no, subject, service IN (SELECT no FROM service) FROM subscription ORDER BY no";
        self.scan_table("subscription", 0, sql, each, |row| Ok(Row::Subscription(row.get(0)?, SubjectNo(row.get(1)?), row.get(2)?)))?;
        self.scan_table("privacy_request", 0, &format!("SELECT {PRIVACY_REQUEST} FROM privacy_request ORDER BY no"), each, |row| {
            Ok(Row::PrivacyRequest(privacy_request(row)?.no))
        })?;
        let sql = "SELECT subject, field FROM profile_text WHERE subject NOT IN (SELECT subject FROM profile)";
        self.scan_table("profile_text of subject", 0, sql, each, |row| {
            Ok(Row::Broken(format!("profile_text: {} of subject {} has no profile", row.get::<_, String>(1)?, row.get::<_, i64>(0)?)))
        })?;
        self.scan_table("vault", 0, "SELECT rowid, owner_kind, owner FROM vault ORDER BY rowid", each, |row| {
            Ok(Row::Vault(match row.get_ref(1)?.as_str()? {
                "profile" => Owner::Profile(SubjectNo(row.get(2)?)),
                "privacy_request" => Owner::PrivacyRequest(row.get(2)?),
                "by_hand" => Owner::ByHand(row.get(2)?),
                "identifier" => Owner::Identifier(IdentifierNo(row.get(2)?)),
                _ => Owner::Request(row.get::<_, Name<_>>(2)?.0),
            }))
        })
    }
}

impl Write for Session<'_> {
    fn append(&mut self, entries: &[(u64, Vec<u8>)], coordinator: &Coordinator) -> Result<(), StoreError> {
        let mut size = self.one("SELECT coalesce(max(seq), 0) FROM entry", [], |row| row.get(0))?.unwrap_or(0_u64);
        let mut insert = self.connection.prepare_cached("INSERT INTO entry VALUES (?, ?)")?;
        for (seq, bytes) in entries {
            if *seq != size + 1 {
                return Err(StoreError::Damaged(format!("entry {seq} cannot follow entry {size}")));
            }
            let bytes = std::str::from_utf8(bytes).map_err(|_| StoreError::Damaged(format!("entry {seq} is not text")))?;
            insert.execute(params![*seq, bytes])?;
            size = *seq;
        }
        let Counters { entries, subjects, identifiers, changes } = coordinator.counters;
        if entries != size {
            return Err(StoreError::Damaged(format!("the coordinator counts {entries} entries where {size} are stored")));
        }
        let sql = "UPDATE coordinator SET entries = ?, subjects = ?, identifiers = ?, changes = ?, frontier = ?";
        self.run(sql, params![entries, subjects, identifiers, changes, coordinator.frontier])?;
        Ok(())
    }

    fn put_evidence(&mut self, seq: u64, segment: &[u8]) -> Result<(), StoreError> {
        self.run("INSERT INTO evidence VALUES (?, ?)", params![seq, segment]).map(drop)
    }

    fn put_tile(&mut self, level: u8, no: u64, hashes: &[u8]) -> Result<(), StoreError> {
        self.run("INSERT OR REPLACE INTO tile VALUES (?, ?, ?)", params![level, no, hashes]).map(drop)
    }

    fn write(&mut self, new: &[(LookupKey, IdRef)], changes: &Changes, first_change: u64) -> Result<(), StoreError> {
        let numbers: BTreeMap<_, _> = changes.parties.iter().map(|(party, _)| *party).zip(first_change..).collect();
        let mut inserted = BTreeSet::new();
        // By number, so that the table grows at its end and its pages are filled.
        let mut new: BTreeMap<_, _> = new.iter().map(|(key, IdRef(no, kind))| (*no, (*key, *kind))).collect();
        let empty = IdentifierRow { kind: Kind::Email, holders: 0, shared: false, line: Line::default() };
        let mut insert = |no: IdentifierNo, key: LookupKey, kind: Kind, row: &IdentifierRow, verdict: Verdict| {
            let Verdict { denied, linked, opted_in } = verdict;
            let (marks, change) = (row.line.to_json(), numbers.get(&Party::Identifier(no)));
            // With its change at once: a row that grows later splits the page.
            inserted.insert(Party::Identifier(no));
            self.run(
                "INSERT INTO identifier VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                params![no.0, key.0, kind.code(), row.holders, row.shared, marks, Mask(denied), Mask(linked), Mask(opted_in), change],
            )
        };
        for (no, row, verdict) in &changes.identifiers {
            // Those that were only named, in an opt-in's first step, have a row but nothing in it.
            while let Some(entry) = new.first_entry()
                && entry.key() < no
            {
                let (no, (key, kind)) = entry.remove_entry();
                insert(no, key, kind, &empty, Verdict::default())?;
            }
            if let Some((key, _)) = new.remove(no) {
                insert(*no, key, row.kind, row, *verdict)?;
                continue;
            }
            let Verdict { denied, linked, opted_in } = *verdict;
            self.update(
                "UPDATE identifier SET kind = ?, holders = ?, shared = ?, marks = ?, denied = ?, linked = ?, opted_in = ? WHERE no = ?",
                *no,
                params![row.kind.code(), row.holders, row.shared, row.line.to_json(), Mask(denied), Mask(linked), Mask(opted_in), no.0],
            )?;
        }
        for (no, (key, kind)) in new {
            insert(no, key, kind, &empty, Verdict::default())?;
        }
        for (no, Verdict { denied, linked, opted_in }) in &changes.verdicts {
            let sql = "UPDATE identifier SET denied = ?, linked = ?, opted_in = ? WHERE no = ?";
            self.update(sql, *no, params![Mask(*denied), Mask(*linked), Mask(*opted_in), no.0])?;
        }
        for (no, row) in &changes.subjects {
            let sql = "INSERT INTO subject (no, marks, held) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET marks = excluded.marks, held = excluded.held";
            self.run(sql, params![no.0, row.line.to_json(), row.held])?;
        }
        for (subject, identifier, holds) in &changes.holds {
            let sql = match holds {
                true => "INSERT INTO hold VALUES (?, ?) ON CONFLICT DO NOTHING",
                false => "DELETE FROM hold WHERE subject = ? AND identifier = ?",
            };
            self.run(sql, [subject.0, identifier.0])?;
        }
        for (party, seq) in &changes.parties {
            let no = numbers[party];
            let (table, row) = match party {
                Party::Subject(SubjectNo(row)) => ("subject", row),
                Party::Identifier(IdentifierNo(row)) => ("identifier", row),
            };
            if !inserted.contains(party) {
                self.run(&format!("DELETE FROM change WHERE no = (SELECT change FROM {table} WHERE no = ?)"), [row])?;
                if self.run(&format!("UPDATE {table} SET change = ? WHERE no = ?"), params![no, row])? != 1 {
                    return Err(StoreError::Damaged(format!("{table} {row} has no row")));
                }
            }
            self.run("INSERT INTO change VALUES (?, ?, ?)", params![no, party.code(), seq])?;
        }
        Ok(())
    }

    fn put_meta(&mut self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.run("INSERT OR REPLACE INTO meta VALUES (?, ?)", params![name, value]).map(drop)
    }

    fn put_destination(&mut self, no: u32, id: &str) -> Result<(), StoreError> {
        self.run("INSERT INTO destination VALUES (?, ?)", params![no, id]).map(drop)
    }

    fn claim_lane(&mut self, destination: u32) -> Result<u64, StoreError> {
        let (epoch, head) = self.lane_head(destination)?.unwrap_or_default();
        let sql = "INSERT INTO lane VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET epoch = excluded.epoch";
        self.run(sql, params![destination, epoch + 1, json(&head)])?;
        Ok(epoch + 1)
    }

    fn save_lane(&mut self, destination: u32, delta: &Delta) -> Result<Option<Vec<News>>, StoreError> {
        let Some((_, head)) = self.lane_head(destination)?.filter(|(epoch, _)| *epoch == delta.epoch) else { return Ok(None) };
        self.run("UPDATE lane SET head = ? WHERE destination = ?", params![json(&delta.head), destination])?;
        let put = |kind: &str, key: u64, value: Option<String>| match value {
            Some(value) => self.run("INSERT OR REPLACE INTO lane_exception VALUES (?, ?, ?, ?)", params![destination, kind, key, value]),
            None => self.run("DELETE FROM lane_exception WHERE destination = ? AND kind = ? AND key = ?", params![destination, kind, key]),
        };
        for (target, parked) in &delta.parked {
            put("parked", target.0, parked.as_ref().map(json))?;
        }
        for (number, job) in &delta.jobs {
            put("job", *number, job.as_ref().map(json))?;
        }
        for (target, is_under_way) in &delta.allows {
            put("allow", target.0, is_under_way.then(|| "true".to_owned()))?;
        }
        for (number, page) in &delta.levels {
            put("levels", *number, page.as_ref().map(json))?;
        }
        // What is new follows from the heads alone.
        Ok(Some(Saved { head, ..Saved::default() }.apply(delta.clone())))
    }

    fn put_purpose(&mut self, bit: u32, name: &str, model: Model) -> Result<(), StoreError> {
        // Not "or replace", which would also remove another purpose of the same name.
        let sql = "INSERT INTO purpose VALUES (?, ?, ?) ON CONFLICT (bit) DO UPDATE SET name = excluded.name, model = excluded.model";
        self.run(sql, params![bit, name, Name(model)]).map(drop)
    }

    fn put_key(&mut self, key: &KeyRow) -> Result<(), StoreError> {
        let KeyRow { no, name, role, key_hash, token_hash, created_at, revoked_at } = key;
        let sql = "INSERT OR REPLACE INTO api_key VALUES (?, ?, ?, ?, ?, ?, ?)";
        self.run(sql, params![no, name, Name(role), key_hash, token_hash, created_at, revoked_at]).map(drop)
    }

    fn put_request(&mut self, row: &RequestRow) -> Result<(), StoreError> {
        let sql = format!(
            "INSERT INTO request ({REQUEST}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET receipt_hash = excluded.receipt_hash, kind = excluded.kind, status = excluded.status,
             channel = excluded.channel, purposes = excluded.purposes, seq = excluded.seq, acted_at = excluded.acted_at,
             recorded_at = excluded.recorded_at, deadline = excluded.deadline, deadline_conventional = excluded.deadline_conventional,
             subject = excluded.subject, identifiers = excluded.identifiers, confirm_hash = excluded.confirm_hash, unreached = excluded.unreached"
        );
        let params = params![
            Name(row.id),
            row.receipt_hash,
            Name(row.kind),
            Name(row.status),
            Name(row.channel),
            Mask(row.purposes),
            row.seq,
            row.acted_at,
            row.recorded_at,
            row.deadline,
            row.deadline_conventional,
            row.subject.map(|no| no.0),
            Json(row.identifiers.clone()),
            row.confirm_hash,
            Json(row.unreached.clone()),
        ];
        self.run(&sql, params).map(drop)
    }

    fn vault_put(&mut self, owner: Owner, sealed: &Sealed) -> Result<(), StoreError> {
        let (kind, owner) = owner_sql(owner);
        let sql = "INSERT INTO vault VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET wrapped_key = excluded.wrapped_key, ciphertext = excluded.ciphertext";
        self.run(sql, params![kind, owner, sealed.wrapped_key, sealed.ciphertext]).map(drop)
    }

    fn vault_shred(&mut self, owner: Owner) -> Result<(), StoreError> {
        self.shredded = true;
        self.run("DELETE FROM vault WHERE owner_kind = ? AND owner = ?", owner_sql(owner)).map(drop)
    }

    fn put_profile(&mut self, subject: SubjectNo, profile: &ProfileRow) -> Result<(), StoreError> {
        let ProfileRow { created_ms, modified_ms, opt_out_ended_ms } = profile;
        self.run("INSERT OR REPLACE INTO profile VALUES (?, ?, ?, ?)", params![subject.0, created_ms, modified_ms, opt_out_ended_ms])
            .map(drop)
    }

    fn delete_profile(&mut self, subject: SubjectNo) -> Result<(), StoreError> {
        self.run("DELETE FROM profile WHERE subject = ?", [subject.0]).map(drop)
    }

    fn put_profile_text(&mut self, subject: SubjectNo, field: &str, old: Option<&str>, new: Option<&str>) -> Result<(), StoreError> {
        if let Some(old) = old.filter(|_| old != new) {
            self.shredded = true;
            self.run("DELETE FROM profile_text WHERE field = ? AND value = ? AND subject = ?", params![field, old, subject.0])?;
        }
        if let Some(new) = new {
            self.run("INSERT INTO profile_text VALUES (?, ?, ?) ON CONFLICT DO NOTHING", params![field, new, subject.0])?;
        }
        Ok(())
    }

    fn remove_profile_texts(&mut self, field: &str, limit: usize) -> Result<usize, StoreError> {
        self.shredded = true;
        let sql = "DELETE FROM profile_text WHERE (field, value, subject) IN (SELECT field, value, subject FROM profile_text WHERE field = ? LIMIT ?)";
        self.run(sql, params![field, limit])
    }

    fn put_service(&mut self, row: &ServiceRow) -> Result<(), StoreError> {
        let ServiceRow { no, pkey, name, attributes, created_ms, modified_ms } = row;
        let no = Some(*no).filter(|no| *no > 0);
        let sql = format!(
            "INSERT INTO service ({SERVICE}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (no) DO UPDATE SET name = excluded.name, attributes = excluded.attributes, modified_ms = excluded.modified_ms"
        );
        self.run(&sql, params![no, pkey, name, attributes, created_ms, modified_ms]).map(drop)
    }

    fn put_subscription(&mut self, row: &SubscriptionRow) -> Result<u64, StoreError> {
        let SubscriptionRow { no: _, pkey, subject, service, created_ms } = row;
        let sql = "INSERT INTO subscription (pkey, subject, service, created_ms) VALUES (?, ?, ?, ?)";
        self.run(sql, params![pkey, subject.0, service, created_ms])?;
        Ok(self.connection.last_insert_rowid() as u64)
    }

    fn delete_subscription(&mut self, no: u64) -> Result<(), StoreError> {
        self.run("DELETE FROM subscription WHERE no = ?", [no]).map(drop)
    }

    fn delete_subscriptions(&mut self, subject: SubjectNo) -> Result<(), StoreError> {
        self.run("DELETE FROM subscription WHERE subject = ?", [subject.0]).map(drop)
    }

    fn put_privacy_request(&mut self, row: &PrivacyRow) -> Result<u64, StoreError> {
        let PrivacyRow { no: _, pkey, name_hash, kind, regulation, status, created_ms, modified_ms } = row;
        let sql =
            "INSERT INTO privacy_request (pkey, name_hash, type, regulation, status, created_ms, modified_ms) VALUES (?, ?, ?, ?, ?, ?, ?)";
        self.run(sql, params![pkey, name_hash, Name(kind), regulation, Name(status), created_ms, modified_ms])?;
        Ok(self.connection.last_insert_rowid() as u64)
    }

    fn put_import(&mut self, import: &[u8; 32], row: &ImportRow) -> Result<(), StoreError> {
        let ImportRow { rows, accepted, refused, finished } = *row;
        let sql = "INSERT OR REPLACE INTO import VALUES (?, ?, ?, ?, ?)";
        self.run(sql, params![Name(Digest(*import)), rows, accepted, refused, finished]).map(drop)
    }

    fn remember(&mut self, scope: &[u8; 32], remembered: &Remembered, now: i64) -> Result<(), StoreError> {
        let (hour, first_kept) = (now.div_euclid(3600), (now - REMEMBER_SECONDS).div_euclid(3600));
        let connection = self.connection;
        let hours = self.hours()?;
        while let Some(old) = hours.first().copied().filter(|old| *old < first_kept) {
            connection.execute_batch(&format!("DROP TABLE idempotency_{old}"))?;
            hours.remove(&old);
        }
        if hours.insert(hour) {
            connection.execute_batch(&format!(
                "CREATE TABLE idempotency_{hour} (scope BLOB PRIMARY KEY NOT NULL, request_digest BLOB NOT NULL, answer TEXT NOT NULL, at INTEGER NOT NULL) STRICT, WITHOUT ROWID"
            ))?;
        }
        let sql = format!("INSERT OR REPLACE INTO idempotency_{hour} VALUES (?, ?, ?, ?)");
        self.run(&sql, params![scope, remembered.request_digest, remembered.answer, now]).map(drop)
    }

    fn scratch(&mut self, now: i64) -> Result<(), StoreError> {
        self.run("INSERT OR REPLACE INTO scratch VALUES (1, ?)", [now]).map(drop)
    }
}
