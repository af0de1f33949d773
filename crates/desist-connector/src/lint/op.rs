//! What an op must be: it says who is meant, writes what it declares and nothing else, and claims no more than its API proves.

use std::collections::BTreeSet;

use super::words::{foreign_word, is_for_sale};
use super::{Allowed, Compiler, Wire, at, placeholders};
use crate::declared::{self, Ceiling, Effect, Method, On, SettingKind, Transport, Unit};
use crate::expression::{Expression, Pointer};
use crate::manifest::{By, Dialect, Op, OpResult, Poll, Request};
use crate::problem::shown;
use crate::template::{Node, Placeholder, Source as From, is_name};

impl Compiler<'_> {
    pub(super) fn op(&mut self, base: &[String], op: &declared::Op) -> Op {
        let is_single = self.declared.limits.batch_items.unwrap_or(1) == 1;
        if op.effect == Effect::Delete && op.on == On::OptIn {
            self.add(&at(base, ["effect"]), "an opt-in deletes nobody", "use another effect");
        }
        if op.unit == Unit::Row && self.declared.lookup.is_none() {
            self.add(&at(base, ["unit"]), "there is no [lookup]", "a row is a record that the look-up found");
        }
        if let Some(each) = &op.for_each {
            let path = at(base, ["for_each"]);
            match each.strip_prefix("settings.") {
                Some(name) => {
                    if self.setting(&path, name).is_some_and(|setting| setting.kind != SettingKind::List || !setting.required) {
                        self.add(&path, "is not a required list", "use a setting with type = \"list\" and required = true");
                    }
                }
                None => self.add(&path, "is not a setting", "write settings.NAME"),
            }
        }
        if op.group_by.as_ref().is_some_and(|by| by != "id.name") || (op.group_by.is_some() && op.unit != Unit::Id) {
            self.add(&at(base, ["group_by"]), "cannot be grouped by that", "use group_by = \"id.name\" with unit = \"id\"");
        }
        if op.group_by.is_some() != op.group.is_some() {
            self.add(&at(base, ["group_by"]), "goes with a group", "write both group_by and group, or none");
        }
        let of_unit = Allowed {
            ids: op.unit == Unit::Person,
            id: op.unit == Unit::Id,
            row: op.unit == Unit::Row,
            person: true,
            each: op.for_each.is_some(),
            ..Allowed::default()
        };
        let before = self.problems.len();
        let item = op.item.as_ref().map(|item| self.node(&at(base, ["item"]), item, of_unit));
        let in_group = Allowed { items: true, group: true, each: of_unit.each, ..Allowed::default() };
        let group = op.group.as_ref().map(|group| self.node(&at(base, ["group"]), group, in_group));
        let of_call = Allowed {
            items: item.is_some() && op.group_by.is_none(),
            item: item.is_some() && is_single && op.group_by.is_none(),
            groups: op.group_by.is_some(),
            each: of_unit.each,
            ..if is_single { of_unit } else { Allowed::default() }
        };
        let request = self.op_request(base, op, of_call);
        let mut used: Vec<&Placeholder> = item.iter().chain(&group).flat_map(Node::placeholders).collect();
        used.extend(request.iter().flat_map(placeholders));
        let (only, needs, general) = self.kinds(base, &used);
        // What a broken template would say is anybody's guess.
        if self.problems.len() == before {
            self.says_whom(base, op, &used, is_single);
            self.writes(base, op, item.as_ref(), group.as_ref(), request.as_ref());
        }
        self.purposes(base, op, used.iter().any(|placeholder| placeholder.source == From::Purposes));
        if self.declared.limits.ids_per_item.is_some() && op.unit == Unit::Person && needs.len() + usize::from(general) > 1 {
            self.add(base, "uses identifiers in two ways, with ids_per_item", "use {{ids}} alone, or one {{ids.KIND}} alone");
        }
        let result = self.result(base, op, is_single);
        let poll = op.poll.as_ref().map(|poll| self.poll(&at(base, ["poll"]), poll));
        if poll.is_some() && !matches!(result.dialect, Dialect::Job { .. }) {
            self.add(&at(base, ["poll"]), "there is no job to ask about", "use dialect = \"job\", or remove [op.poll]");
        }
        self.ceiling(base, op, &result.dialect, poll.is_some());
        Op {
            on: op.on,
            purposes: op.purposes.clone(),
            effect: op.effect,
            ceiling: op.ceiling,
            unit: op.unit,
            request,
            item,
            group,
            grouped: op.group_by.is_some(),
            each: op.for_each.as_ref().and_then(|each| each.strip_prefix("settings.")).map(str::to_owned),
            only,
            takes_ids: general,
            needs,
            result,
            errors: self.errors(&at(base, ["errors"]), &op.errors),
            poll,
        }
    }

    fn op_request(&mut self, base: &[String], op: &declared::Op, allowed: Allowed) -> Option<Request> {
        if !self.is_http() {
            let keys = [
                ("method", op.method.is_some()),
                ("host", op.host.is_some()),
                ("path", op.path.is_some()),
                ("query", !op.query.is_empty()),
                ("headers", !op.headers.is_empty()),
                ("body", op.body.is_some()),
                ("group_by", op.group_by.is_some()),
                ("result", op.result.is_some()),
                ("poll", op.poll.is_some()),
            ];
            for (key, _) in keys.into_iter().filter(|(_, is_there)| *is_there) {
                self.only_http(&at(base, [key]));
            }
            if op.item.is_none() {
                self.add(&at(base, ["item"]), "is missing", "with this transport an op is its rows; write what one row holds");
            }
            return None;
        }
        for (key, is_missing) in [("method", op.method.is_none()), ("path", op.path.is_none()), ("result", op.result.is_none())] {
            if is_missing {
                self.add(&at(base, [key]), "is missing", "a call over HTTP needs method, path and [op.result]");
            }
        }
        let method = op.method.unwrap_or_default();
        if method == Method::Get && op.method.is_some() {
            self.add(&at(base, ["method"]), "a GET tells nobody anything", "caches and crawlers repeat it; use another method");
        }
        let path = op.path.as_deref().unwrap_or("/");
        let (query, headers) = (&op.query, &op.headers);
        // A wrong method was said; a body with it needs no second word.
        let method = if method == Method::Get { Method::Post } else { method };
        let wire = Wire { method, host: op.host.as_deref(), path, query, headers, body: op.body.as_ref() };
        Some(self.request(base, &wire, allowed))
    }

    fn purposes(&mut self, base: &[String], op: &declared::Op, says_purposes: bool) {
        let path = at(base, ["purposes"]);
        if op.purposes.is_empty() {
            self.add(&path, "is empty", "name the purposes that this op implements, such as [\"sale\", \"sharing\"]");
        }
        for (place, purpose) in op.purposes.iter().enumerate() {
            let path = at(&path, [&place.to_string()]);
            if purpose == "*" {
                if op.purposes.len() > 1 || !matches!(op.effect, Effect::Notice | Effect::Table) || !says_purposes {
                    let hint = "only a notice or a table can be about every purpose, alone, and says which with {{purposes}}";
                    self.add(&path, "all purposes at once", hint);
                }
            } else if !is_name(purpose) {
                self.add(&path, format!("{} is not a purpose", shown(purpose)), "use a built-in purpose or one of the business's own");
            } else if op.purposes[..place].contains(purpose) {
                self.add(&path, "stands twice", "remove one");
            }
        }
    }

    /// Whether somebody is named in what is sent; otherwise it would be about nobody, or about everybody.
    fn says_whom(&mut self, base: &[String], op: &declared::Op, used: &[&Placeholder], is_single: bool) {
        let names = |test: fn(&From) -> bool| used.iter().any(|placeholder| test(&placeholder.source));
        let sends_items = names(|source| matches!(source, From::Items | From::Item));
        if op.item.is_some() && self.is_http() && !sends_items {
            self.add(&at(base, ["item"]), "is never sent", "put {{items}} into the body or group");
        }
        if op.group.is_some() && !names(|source| *source == From::Groups) {
            self.add(&at(base, ["group"]), "is never sent", "put {{groups}} into the body");
        }
        if used.iter().filter(|placeholder| matches!(placeholder.source, From::Items | From::Item | From::Groups)).count() > 2 {
            self.add(base, "sends its items more than once", "put {{items}} or {{groups}} in one place");
        }
        if !is_single && self.is_http() && op.item.is_none() {
            self.add(&at(base, ["item"]), "is missing", "with batch_items above 1 a call has {{items}}; write what one of them is");
        }
        let wanted: fn(&From) -> bool = match op.unit {
            Unit::Person => |source| matches!(source, From::Ids(_)),
            Unit::Id => |source| matches!(source, From::Id(_) | From::Value),
            Unit::Row => |source| matches!(source, From::Lookup(_)),
        };
        if !names(wanted) {
            let hint = match op.unit {
                Unit::Person => "with unit = \"person\" use {{ids}} or {{ids.KIND}}",
                Unit::Id => "with unit = \"id\" use {{id}}, {{id.KIND}} or {{value}}",
                Unit::Row => "with unit = \"row\" use {{lookup}}",
            };
            self.add(base, "does not say who is meant", hint);
        }
    }

    /// An op writes what it says it writes, and no other choice of the person.
    fn writes(&mut self, base: &[String], op: &declared::Op, item: Option<&Node>, group: Option<&Node>, request: Option<&Request>) {
        let writes = op.writes.as_slice();
        if writes.is_empty() || writes.iter().any(|one| one.trim().is_empty()) {
            self.add(&at(base, ["writes"]), "is empty", "name the field, list or flag that this op writes");
        }
        // Where each leaf is written down, and its path in its own template. Members that say who is meant are in no list.
        let mut leaves: Vec<(&str, String)> = Vec::new();
        let body = request.and_then(|request| request.body.as_ref());
        for (key, node) in [("item", item), ("group", group), ("body", body)] {
            let own = node
                .iter()
                .flat_map(|node| node.leaves())
                .filter(|leaf| !matches!(leaf.node, Node::Placeholder(placeholder) if placeholder.source.names_somebody()));
            leaves.extend(own.map(|leaf| (key, leaf.path)));
        }
        for (name, text) in request.iter().flat_map(|request| &request.query) {
            if !text.placeholders().any(|placeholder| placeholder.source.names_somebody()) {
                leaves.push(("query", format!("query.{name}")));
            }
        }
        self.op_words(base, op, [("item", item), ("group", group)], request);
        for word in writes.iter().filter_map(|one| foreign_word(one)).filter(|_| is_for_sale(op)) {
            self.refuse_word(&at(base, ["writes"]), "", word);
        }
        let (mut told, mut written) = (BTreeSet::new(), false);
        for (key, path) in &leaves {
            let is_written = writes.contains(path);
            if is_written || op.fixed.contains(path) {
                written |= is_written;
                told.insert(path.clone());
            } else if !path.is_empty() {
                let hint = "an op writes what it declares alone: name the member in `writes`, or in `fixed` if it only steers the call";
                self.add(&at(base, [key]), format!("also sends {}", shown(path)), hint);
            }
        }
        if op.effect == Effect::Flag && !written {
            let hint = "with effect = \"flag\", `writes` has the path of the member that is set, such as \"attributes.ccpaOptOut\"";
            self.add(&at(base, ["writes"]), "is not a member of item or body", hint);
        }
        for (place, fixed) in op.fixed.iter().enumerate() {
            if !told.contains(fixed) || writes.contains(fixed) {
                self.add(&at(base, ["fixed", &place.to_string()]), "is not a constant that is sent", "remove it");
            }
        }
    }

    fn result(&mut self, base: &[String], op: &declared::Op, is_single: bool) -> OpResult {
        use declared::Dialect as D;
        let Some(result) = &op.result else { return OpResult::default() };
        let base = at(base, ["result"]);
        let (needs, may): (&[&str], &[&str]) = match result.dialect {
            D::Status | D::Blind => (&[], &[]),
            D::BodyFlag => (&["ok"], &["failed", "reason", "absent", "duplicate"]),
            D::Index => (&["ok"], &["reason", "absent", "duplicate"]),
            D::ListByKey => (&["failed", "key"], &["key_base", "item_key", "ok", "reason", "absent", "duplicate"]),
            D::Count => (&["failed"], &["reason"]),
            D::Job => (&["key"], &["duplicate"]),
        };
        let keys = [
            ("ok", result.ok.is_some()),
            ("failed", result.failed.is_some()),
            ("key", result.key.is_some()),
            ("key_base", result.key_base.is_some()),
            ("item_key", result.item_key.is_some()),
            ("reason", result.reason.is_some()),
            ("absent", result.absent.is_some()),
            ("duplicate", result.duplicate.is_some()),
        ];
        for (key, is_there) in keys {
            if is_there && !needs.contains(&key) && !may.contains(&key) {
                let keys = needs.iter().chain(may).copied().collect::<Vec<_>>().join(", ");
                self.add(&at(&base, [key]), "does not belong to this dialect", format!("its keys: {keys}; and ok_status, absent_status"));
            } else if !is_there && needs.contains(&key) {
                self.add(&at(&base, [key]), "is missing", "this dialect needs it");
            }
        }
        if !result.absent_status.is_empty() && !is_single {
            self.add(&at(&base, ["absent_status"]), "a status speaks for all items", "use it with batch_items = 1");
        }
        let expression = |this: &mut Self, key: &str, text: &Option<String>| this.optional(&at(&base, [key]), text.as_ref());
        let (ok, mut absent, mut duplicate) = (
            expression(self, "ok", &result.ok),
            expression(self, "absent", &result.absent),
            expression(self, "duplicate", &result.duplicate),
        );
        let mut reason = result.reason.as_ref().map(|text| self.pointer(&at(&base, ["reason"]), text));
        let failed = result.failed.clone().unwrap_or_default();
        let failed_path = at(&base, ["failed"]);
        let nothing = || Expression::parse(" exists").expect("an expression");
        let dialect = match result.dialect {
            D::Status => Dialect::Status,
            D::Blind => Dialect::Blind,
            D::BodyFlag => Dialect::BodyFlag { ok: ok.unwrap_or_else(nothing), failed: expression(self, "failed", &result.failed) },
            D::Index => {
                let parts = ok.as_ref().and_then(Expression::split);
                if parts.is_none() && ok.is_some() {
                    self.add(&at(&base, ["ok"]), "has no * for the rows", "such as /results/*/success == true");
                }
                let (rows, ok) = parts.unwrap_or_else(|| (Pointer::default(), nothing()));
                for (key, part) in [("absent", &mut absent), ("duplicate", &mut duplicate)] {
                    let Some(expression) = part else { continue };
                    match expression.split() {
                        Some((list, inner)) if list == rows => *part = Some(inner),
                        _ => self.add(&at(&base, [key]), "walks other rows than `ok`", "begin as `ok` does, up to the *"),
                    }
                }
                if let Some(pointer) = &mut reason {
                    match pointer.split() {
                        Some((list, inner)) if list == rows => *pointer = inner,
                        _ => self.add(&at(&base, ["reason"]), "walks other rows than `ok`", "begin as `ok` does, up to the *"),
                    }
                }
                Dialect::Index { rows, ok }
            }
            D::ListByKey => {
                let rows = match self.pointer(&failed_path, &failed).split() {
                    Some((rows, rest)) if rest == Pointer::default() => rows,
                    _ => {
                        self.add(&failed_path, "is not a list of rows", "end it with /*, such as /FailedLines/*");
                        Pointer::default()
                    }
                };
                let by = match (result.key_base, &result.item_key) {
                    (Some(base), None) => By::Position(base),
                    (None, Some(item_key)) => By::Item(self.pointer(&at(&base, ["item_key"]), item_key)),
                    _ => {
                        let hint = "key_base if the key is a position, counted from 0 or 1; item_key if it repeats a value of the item";
                        self.add(&at(&base, ["key"]), "can be read in no way, or in two", hint);
                        By::Position(0)
                    }
                };
                let key = self.pointer(&at(&base, ["key"]), result.key.as_deref().unwrap_or_default());
                Dialect::ListByKey { rows, key, by, ok }
            }
            D::Count => Dialect::Count { failed: self.pointer(&failed_path, &failed) },
            D::Job => Dialect::Job { key: self.pointer(&at(&base, ["key"]), result.key.as_deref().unwrap_or_default()) },
        };
        let ok_status = self.statuses(&at(&base, ["ok_status"]), &result.ok_status);
        if ok_status.iter().any(|status| *status >= 300) {
            self.add(&at(&base, ["ok_status"]), "has a status that is not good", "use 200 to 299; see absent_status for the rest");
        }
        let absent_status = self.statuses(&at(&base, ["absent_status"]), &result.absent_status);
        OpResult { dialect, ok_status, absent_status, absent, duplicate, reason }
    }

    fn poll(&mut self, base: &[String], poll: &declared::Poll) -> Poll {
        self.reads(base, poll.method);
        let request = self.request(base, &wire!(poll), Allowed { job: true, ..Allowed::default() });
        if !placeholders(&request).iter().any(|placeholder| placeholder.source == From::Job) {
            self.add(base, "does not say which job it asks about", "use {{job}}");
        }
        let (every, give_up) =
            (self.duration(&at(base, ["every"]), Some(&poll.every)), self.duration(&at(base, ["give_up"]), Some(&poll.give_up)));
        if every > give_up {
            self.add(&at(base, ["every"]), "is longer than give_up", "ask at least once before giving up");
        }
        Poll {
            request,
            done: self.expression(&at(base, ["done"]), &poll.done),
            failed: self.optional(&at(base, ["failed"]), poll.failed.as_ref()),
            reason: poll.reason.as_ref().map(|text| self.pointer(&at(base, ["reason"]), text)),
            every,
            give_up,
        }
    }

    /// No manifest claims more than its API can prove.
    fn ceiling(&mut self, base: &[String], op: &declared::Op, dialect: &Dialect, has_poll: bool) {
        let path = at(base, ["ceiling"]);
        match (op.ceiling, dialect) {
            (Ceiling::Applied | Ceiling::Verified, _) if !self.is_http() && self.declared.connector.transport != Transport::Sql => {
                self.add(&path, "is above what a file or a person who carries it proves", "use \"accepted\"");
            }
            // It reads back each row that it writes, whatever the row says.
            (Ceiling::Verified, _) if self.declared.connector.transport == Transport::Sql => {}
            (Ceiling::Verified, _) if op.on == On::OptIn => {
                self.add(&path, "what is read back is an opt-out", "[verify] says nothing about an opt-in; use \"applied\"");
            }
            (Ceiling::Applied | Ceiling::Verified, Dialect::Blind) if self.is_http() => {
                self.add(&path, "is above what a blind API proves", "use \"accepted\"");
            }
            (Ceiling::Applied, Dialect::Job { .. }) if !has_poll => {
                self.add(&path, "nobody asks what became of the job", "add [op.poll], or use \"accepted\"");
            }
            (Ceiling::Accepted, Dialect::Job { .. }) if has_poll => {
                self.add(&path, "is below what a finished job proves", "use \"applied\", or remove [op.poll]");
            }
            (Ceiling::Verified, _) if self.declared.verify.is_none() => {
                self.add(&path, "nobody reads back what was told", "add [verify], or use a lower ceiling");
            }
            _ => {}
        }
    }
}
