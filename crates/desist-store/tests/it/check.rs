//! One thing wrong in each table is named.

use desist_store::Readers;
use desist_store::contract::filled;
use desist_store::sqlite::SqliteReaders;
use desist_store::{Scope, check};

use crate::Temporary;

#[test]
fn every_table_is_compared_with_the_log() {
    let cases = [
        ("", ""),
        ("UPDATE entry SET bytes = replace(bytes, '\"form\"', '\"mail\"') WHERE seq = 9", "Merkle frontier"),
        ("UPDATE entry SET bytes = bytes || ' ' WHERE seq = 2", "entry 2 is not what desist writes"),
        ("UPDATE entry SET bytes = (SELECT bytes FROM entry WHERE seq = 3) WHERE seq = 4", "entry 4 says that it is entry 3"),
        ("DELETE FROM entry WHERE seq = 5", "entry 5 is missing"),
        ("UPDATE coordinator SET entries = entries - 1", "coordinator: there are entries after its last"),
        ("UPDATE coordinator SET entries = entries + 1", "is missing"),
        ("UPDATE coordinator SET frontier = x'00'", "coordinator: the Merkle frontier"),
        ("UPDATE coordinator SET subjects = 1", "coordinator: the log names subjects above 1"),
        ("UPDATE coordinator SET identifiers = 1", "coordinator: the log names identifiers above 1"),
        ("DELETE FROM coordinator", "coordinator: its row is missing"),
        ("UPDATE identifier SET denied = 0 WHERE no = 2", "identifier 2: the stored verdict"),
        ("UPDATE identifier SET linked = 8 WHERE no = 2", "identifier 2: the stored verdict"),
        ("UPDATE identifier SET opted_in = 8 WHERE no = 3", "identifier 3: the stored verdict"),
        ("UPDATE identifier SET marks = '[]' WHERE no = 2", "identifier 2 differs"),
        ("UPDATE identifier SET marks = 'x' WHERE no = 2", "identifier 2: Invalid"),
        ("UPDATE identifier SET kind = 2 WHERE no = 2", "identifier 2 differs"),
        ("UPDATE identifier SET kind = 99 WHERE no = 2", "identifier 2: Invalid"),
        ("UPDATE identifier SET holders = 7 WHERE no = 3", "identifier 3 differs"),
        ("UPDATE identifier SET shared = 1 WHERE no = 1", "identifier 1 differs"),
        ("UPDATE identifier SET key = x'' WHERE no = 1", "identifier 1: "),
        ("UPDATE identifier SET no = 99 WHERE no = 1", "identifier 1 is missing"),
        ("DELETE FROM identifier WHERE no = 4", "identifier 4 is missing"),
        ("UPDATE subject SET held = 7 WHERE no = 1", "subject 1 differs"),
        ("UPDATE subject SET marks = '[]' WHERE no = 1", "subject 1 differs"),
        ("UPDATE subject SET marks = '' WHERE no = 1", "subject 1: Invalid"),
        ("DELETE FROM subject WHERE no = 2", "subject 2 is missing"),
        ("INSERT INTO subject VALUES (77, '[]', 0, NULL)", "subject 77 differs"),
        ("DELETE FROM hold WHERE identifier = 2", "hold of subject 1 on identifier 2 is missing"),
        ("INSERT INTO hold VALUES (2, 5)", "hold of subject 2 on identifier 5 is not in the log"),
        ("UPDATE request SET seq = 1 WHERE no = 1", "request AAAAAAAAAAAAAAAAAAAAAQ differs from entry"),
        ("UPDATE request SET status = 'confirmed' WHERE no = 1", "request AAAAAAAAAAAAAAAAAAAAAQ differs from entry"),
        ("UPDATE request SET purposes = 0 WHERE no = 2", "request AAAAAAAAAAAAAAAAAAAAAg differs from entry"),
        ("UPDATE request SET id = 'AAAAAAAAAAAAAAAAAAAAAw' WHERE no = 1; DELETE FROM vault WHERE owner_kind = 'request'", "request AAAAAAAAAAAAAAAAAAAAAw differs"),
        ("UPDATE request SET id = 'BAAAAAAAAAAAAAAAAAAAAw' WHERE no = 1", "request BAAAAAAAAAAAAAAAAAAAAw is in no entry"),
        ("UPDATE request SET channel = '' WHERE no = 2", "request 2: Invalid"),
        ("DELETE FROM request WHERE no = 1", "vault: the item of request AAAAAAAAAAAAAAAAAAAAAQ has no request"),
        ("DELETE FROM profile", "profile of subject 1 is missing"),
        ("DELETE FROM profile", "vault: the item of profile 1 has no profile"),
        ("INSERT INTO profile VALUES (2, 0, 0, NULL)", "profile of subject 2 is not in the log, or was deleted there"),
        ("DELETE FROM vault WHERE owner_kind = 'profile'", "vault: the item of profile 1 is missing"),
        ("INSERT INTO vault VALUES ('profile', 2, x'', x'')", "vault: the item of profile 2 has no profile"),
        ("UPDATE vault SET owner = x'00'", "vault 1: Invalid"),
        ("UPDATE api_key SET role = 'admin'", "api_key 1 differs"),
        ("UPDATE api_key SET revoked_at = NULL", "api_key 1 differs"),
        ("UPDATE api_key SET role = 'root'", "name: role"),
        ("DELETE FROM api_key", "api_key 1 differs"),
        ("UPDATE purpose SET name = 'other'", "purpose 16 differs"),
        ("UPDATE purpose SET model = 'opt_out'", "purpose 16 differs"),
        ("INSERT INTO purpose VALUES (17, 'other', 'opt_in')", "purpose 17 differs"),
        ("DELETE FROM change WHERE party = 2", "change of subject 1 is missing"),
        ("DELETE FROM change WHERE party % 2 = 1", "its change is another's"),
        ("UPDATE change SET party = 999998 WHERE party = 2", "is of nobody in the log"),
        ("UPDATE change SET seq = 999999 WHERE party = 2", "above the last"),
        ("UPDATE coordinator SET changes = 0", "above the last"),
        ("UPDATE subject SET change = NULL", "its change is another's"),
        ("UPDATE import SET refused = 0", "import CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk differs from entry"),
        ("DELETE FROM import", "import CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk differs from entry"),
        ("DELETE FROM evidence", "evidence of entry 17 is missing"),
        ("UPDATE evidence SET seq = 4", "evidence of entry 4: the log has no such entry"),
        ("UPDATE evidence SET records = x'0100000003'", "evidence of entry 17 cannot be read"),
        ("UPDATE evidence SET records = x'01000000000300'", "evidence of entry 17 is not what the entry says"),
        ("DROP INDEX hold_by_identifier; CREATE INDEX hold_by_identifier ON hold (identifier) WHERE identifier > 2; PRAGMA writable_schema = ON;
          UPDATE sqlite_schema SET sql = 'CREATE INDEX hold_by_identifier ON hold (identifier)' WHERE name = 'hold_by_identifier'", "database: "),
    ];
    for (sql, expected) in cases {
        let mut harness = Temporary::new();
        drop(filled(&mut harness));
        harness.raw().execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let (mut problems, mut seen) = (Vec::new(), Vec::new());
        let readers = SqliteReaders::open_read_only(&harness.home()).expect("opens");
        readers
            .read(&mut |read| check(read, Scope::All, &mut |done, of| seen.push((done, of))).map(|found| problems = found))
            .expect("reads");
        assert_eq!(problems.is_empty(), sql.is_empty(), "{sql}: {problems:?}");
        assert!(sql.is_empty() || problems.iter().any(|problem| problem.contains(expected)), "{sql}: {problems:?}");
        assert!(seen.last().is_none_or(|(done, of)| done == of));
    }
}
