-- Version 1. A released file is never edited: the database keeps its SHA-256 in `migration`.
-- Sets of purposes are 64-bit masks by bit of the purpose; times are Unix seconds unless named _ms.

CREATE TABLE migration (version INTEGER PRIMARY KEY, sha256 TEXT NOT NULL) STRICT;

-- The log. `bytes` is the JSON that is hashed, exactly.
CREATE TABLE entry (seq INTEGER PRIMARY KEY, bytes TEXT NOT NULL) STRICT;

-- The highest numbers given, and the Merkle frontier over `entry`.
CREATE TABLE coordinator (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  entries INTEGER NOT NULL,
  subjects INTEGER NOT NULL,
  identifiers INTEGER NOT NULL,
  changes INTEGER NOT NULL,
  frontier BLOB NOT NULL
) STRICT;
INSERT INTO coordinator VALUES (1, 0, 0, 0, 0, x'0000000000000000');

-- Hashes of the log's Merkle tree, 32 bytes each, 256 to a full tile (C2SP tlog-tiles).
CREATE TABLE tile (
  level INTEGER NOT NULL,
  no INTEGER NOT NULL,
  hashes BLOB NOT NULL,
  PRIMARY KEY (level, no)
) STRICT;

-- The records of what destinations took, packed: of each entry `acknowledged` those under its root. Numbers and digests alone.
CREATE TABLE evidence (seq INTEGER PRIMARY KEY, records BLOB NOT NULL) STRICT;

CREATE TABLE kind (code INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
INSERT INTO kind VALUES (1, 'email'), (2, 'phone'), (3, 'customer_id'), (4, 'campaign_pkey'), (5, 'uid2'),
  (6, 'rampid'), (7, 'cookie_id'), (8, 'device_id'), (9, 'maid');

-- `marks` is [[purposes, class, "deny"|"allow", acted at, server timed, seq]...]; the last three
-- columns are the verdict that follows from it and from the subjects that hold the identifier.
CREATE TABLE identifier (
  no INTEGER PRIMARY KEY,
  key BLOB NOT NULL UNIQUE,
  kind INTEGER NOT NULL,
  holders INTEGER NOT NULL,
  shared INTEGER NOT NULL,
  marks TEXT NOT NULL,
  denied INTEGER NOT NULL,
  linked INTEGER NOT NULL,
  opted_in INTEGER NOT NULL,
  change INTEGER
) STRICT;

-- Campaign keys that may not be sold, or whose verdict does not tell: 4 is the kind, 1 the bit of `sale`.
CREATE INDEX identifier_denied_profile ON identifier (no) WHERE kind = 4 AND ((denied | linked) & 1 <> 0 OR shared <> 0);

CREATE TABLE subject (no INTEGER PRIMARY KEY, marks TEXT NOT NULL, held INTEGER NOT NULL, change INTEGER) STRICT;

CREATE TABLE hold (
  subject INTEGER NOT NULL,
  identifier INTEGER NOT NULL,
  PRIMARY KEY (subject, identifier)
) STRICT, WITHOUT ROWID;
CREATE INDEX hold_by_identifier ON hold (identifier);

-- Whom destinations may have to be told about, each once, in the order of the latest change. `party` is the number of a
-- subject doubled, or of an identifier that nobody or too many held then, doubled and one; `seq` is the entry that changed it.
-- The party's own row has the number too: an index on `party` would be larger.
CREATE TABLE change (no INTEGER PRIMARY KEY, party INTEGER NOT NULL, seq INTEGER NOT NULL) STRICT;

-- `id` is written as in the log.
CREATE TABLE request (
  no INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  receipt_hash BLOB NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  status TEXT NOT NULL,
  channel TEXT NOT NULL,
  purposes INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  acted_at INTEGER NOT NULL,
  recorded_at INTEGER NOT NULL,
  deadline TEXT NOT NULL,
  deadline_conventional TEXT NOT NULL,
  subject INTEGER,
  identifiers TEXT NOT NULL,
  confirm_hash BLOB,
  unreached TEXT NOT NULL
) STRICT;
CREATE INDEX request_unreached ON request (seq) WHERE unreached <> '[]';

CREATE TABLE profile (
  subject INTEGER PRIMARY KEY,
  created_ms INTEGER NOT NULL,
  modified_ms INTEGER NOT NULL,
  opt_out_ended_ms INTEGER
) STRICT;
CREATE INDEX profile_by_created ON profile (created_ms, subject);
CREATE INDEX profile_by_modified ON profile (modified_ms, subject);

-- The fields of `vault.searchable`, in clear because the operator said so.
CREATE TABLE profile_text (
  field TEXT NOT NULL,
  value TEXT NOT NULL,
  subject INTEGER NOT NULL,
  PRIMARY KEY (field, value, subject)
) STRICT, WITHOUT ROWID;

-- What profiles can subscribe to. `attributes` is JSON.
CREATE TABLE service (
  no INTEGER PRIMARY KEY,
  pkey TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL UNIQUE,
  attributes TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  modified_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE subscription (
  no INTEGER PRIMARY KEY,
  pkey TEXT NOT NULL UNIQUE,
  subject INTEGER NOT NULL,
  service INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  UNIQUE (subject, service)
) STRICT;
CREATE INDEX subscription_by_subject ON subscription (subject, no);
CREATE INDEX subscription_by_service ON subscription (service, no);

-- Requests of the Campaign API to see or delete a person's data; who it is about is in the vault.
CREATE TABLE privacy_request (
  no INTEGER PRIMARY KEY,
  pkey TEXT NOT NULL UNIQUE,
  name_hash BLOB NOT NULL UNIQUE,
  type TEXT NOT NULL,
  regulation TEXT NOT NULL,
  status TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  modified_ms INTEGER NOT NULL
) STRICT;

-- Sealed data. `owner` is the number of a subject, privacy request or identifier, or of the entry about a destination told by hand, or the
-- id of a request.
CREATE TABLE vault (
  owner_kind TEXT NOT NULL CHECK (owner_kind IN ('profile', 'request', 'privacy_request', 'identifier', 'by_hand')),
  owner ANY NOT NULL,
  wrapped_key BLOB NOT NULL,
  ciphertext BLOB NOT NULL,
  PRIMARY KEY (owner_kind, owner)
) STRICT;

CREATE TABLE api_key (
  no INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  role TEXT NOT NULL,
  key_hash BLOB NOT NULL,
  token_hash BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  revoked_at INTEGER
) STRICT;

CREATE TABLE purpose (bit INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, model TEXT NOT NULL) STRICT;

-- `id` is written as in the log.
CREATE TABLE import (
  id TEXT PRIMARY KEY NOT NULL,
  rows INTEGER NOT NULL,
  accepted INTEGER NOT NULL,
  refused INTEGER NOT NULL,
  finished INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Destinations by number, which lanes and entries refer to. A number is never given again.
CREATE TABLE destination (no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE) STRICT;

-- The books of a destination's lane: the number of its last lease, and as JSON what is written whole.
CREATE TABLE lane (destination INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, head TEXT NOT NULL) STRICT;

-- Exceptions from the lane's cursor, as JSON: parties that are parked, jobs by number, parties about which an allow may be
-- under way, and pages of half a byte for each party: what is known of those that are not at the level of the others.
CREATE TABLE lane_exception (
  destination INTEGER NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('parked', 'job', 'allow', 'levels')),
  key INTEGER NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (destination, kind, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE scratch (one INTEGER PRIMARY KEY CHECK (one = 1), at INTEGER NOT NULL) STRICT;

-- Answers to requests with an Idempotency-Key are in tables `idempotency_<hour since 1970>`, each
-- made when it is first needed and dropped whole.
