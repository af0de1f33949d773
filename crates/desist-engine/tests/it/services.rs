//! Services, subscriptions, and the privacy requests that end them.

use desist_core::fact::Actor;
use desist_core::identifier::{Identifier, Kind};
use desist_core::purpose::PurposeSet;
use desist_engine::engine::{Ctx, Engine, Failure, Refusal};
use desist_engine::intake::Outcome;
use desist_engine::privacy::{self, NewPrivacyRequest};
use desist_engine::queue::Lane;
use desist_engine::services::{self, NewService, SERVICES_MAX, Side};
use desist_store::{Owner, PrivacyKind, PrivacyRow, PrivacyStatus, Subscriptions};

use crate::people::{KEY, all, assert_lists, create, create_all, delete, link, new_profile, person, service, subscribe, value};
use crate::story::pkey;
use crate::support::{Home, audit, email, facts_after, hang, is_denied, log, named, settle};

const ROSA: &str = "rosa@example.com";

fn privacy_request(name: &str, kind: PrivacyKind, identifier: Identifier) -> NewPrivacyRequest {
    NewPrivacyRequest {
        pkey: format!("key of {name}"),
        name_hash: desist_engine::secrets::hash(name),
        kind,
        regulation: "CCPA".to_owned(),
        identifier,
        details: format!("{{\"name\":\"{name}\"}}").into_bytes(),
        by: KEY,
    }
}

fn about(text: &str) -> Identifier {
    Identifier::from_value(Kind::Email, text).expect("valid").0
}

/// As the web layer does: the e-mail must stand in the attributes.
fn carry_out(ctx: &mut Ctx<'_>, new: &NewPrivacyRequest) -> Outcome<PrivacyRow> {
    let wanted = new.identifier.digest;
    let holds =
        |attributes: &[u8]| Identifier::from_value(Kind::Email, &value(attributes, "email")).is_ok_and(|(own, _)| own.digest == wanted);
    privacy::carry_out(ctx, new, &holds)
}

fn ask(engine: &Engine, name: &str, kind: PrivacyKind, text: &str) -> Result<PrivacyRow, Failure> {
    let new = privacy_request(name, kind, about(text));
    engine.submit_blocking(Lane::Interactive, move |ctx| carry_out(ctx, &new))
}

fn keys(engine: &Engine) -> Vec<String> {
    all(engine).into_iter().map(|profile| profile.pkey).collect()
}

#[test]
fn names_of_services_are_unique_and_the_next_free_number_is_given() {
    let home = Home::new(1);
    let engine = home.open();
    let name = |key: &str, name: Option<&str>| service(&engine, key, name).map(|row| (row.no, row.name));
    assert_eq!(name("a", None), Ok((1, "SVC1".to_owned())));
    assert_eq!(name("b", Some("SVC3")), Ok((2, "SVC3".to_owned())));
    assert_eq!(name("c", Some("News")), Ok((3, "News".to_owned())));
    assert_eq!(name("d", Some("SVC3")), Err(Failure::Refused(Refusal::Taken)));
    assert_eq!(name("e", Some("news")), Ok((4, "news".to_owned())), "with case");
    assert_eq!(name("f", None), Ok((5, "SVC2".to_owned())));
    assert_eq!(name("g", None), Ok((6, "SVC4".to_owned())), "SVC3 is taken");
    let change = |key: &'static str, name: Option<&'static str>, attributes: Option<&'static str>| {
        engine.submit_blocking(Lane::Interactive, move |ctx| services::change(ctx, key, name, &mut |_| attributes.map(str::to_owned)))
    };
    home.env.advance(5);
    let stored = |key: &str| engine.read(|read| services::by_pkey(read, key)).expect("reads");
    let before = stored("a").expect("there");
    assert_eq!(change("a", Some("News"), Some("{}")), Err(Failure::Refused(Refusal::Taken)));
    assert_eq!(change("a", None, None), Err(Failure::Refused(Refusal::Profile)));
    assert_eq!(change("z", None, Some("{}")), Err(Failure::Refused(Refusal::NotFound)));
    assert_eq!(change("a", Some("SVC1"), Some("{}")), Ok(()), "as it was");
    assert_eq!(stored("a").as_ref(), Some(&before));
    assert_eq!(change("a", Some("Offers"), Some("{\"label\":1}")), Ok(()));
    let after = stored("a").expect("there");
    assert_eq!((after.name.as_str(), after.attributes.as_str()), ("Offers", "{\"label\":1}"));
    assert_eq!((after.no, after.created_ms, after.modified_ms), (1, before.created_ms, before.modified_ms + 5000));
    assert_eq!(name("h", None), Ok((7, "SVC1".to_owned())), "free again");
    // They say nothing of what may be sold, and the log does not know them.
    assert_eq!(facts_after(&engine, 0), ["log_opened"]);
    audit(&engine);
    engine.close();
}

#[test]
fn the_1001st_service_is_refused() {
    let home = Home::new(1);
    let engine = home.open();
    let made = engine.submit_blocking(Lane::Interactive, |ctx| {
        for n in 0..SERVICES_MAX - 1 {
            let new = NewService { pkey: n.to_string(), name: (n % 2 == 0).then(|| format!("named {n}")), attributes: String::new() };
            assert!(services::create(ctx, &new)?.is_ok());
        }
        Ok(Ok(()))
    });
    assert_eq!(made, Ok(()));
    assert_eq!(service(&engine, "last", None).map(|row| (row.no, row.name)), Ok((1000, "SVC500".to_owned())));
    for name in [None, Some("new"), Some("named 0")] {
        assert_eq!(service(&engine, "one more", name), Err(Failure::Refused(Refusal::TooMany)));
    }
    assert_eq!(engine.read(|read| read.services()).expect("reads").len(), SERVICES_MAX);
    audit(&engine);
    engine.close();
}

#[test]
fn a_subscription_is_one_and_ends_with_its_profile() {
    let home = Home::new(1);
    let engine = home.open();
    for key in ["p1", "p2"] {
        create(&engine, key, person(ROSA, "", ""), false).expect("created");
    }
    for key in ["s1", "s2"] {
        service(&engine, key, None).expect("made");
    }
    let first = subscribe(&engine, "p1", "s1", "one").expect("subscribed");
    assert!(first.1 && first.0.pkey == "one" && first.0.service == 1);
    assert_eq!(subscribe(&engine, "p1", "s1", "two"), Ok((first.0.clone(), false)), "the first one");
    assert_eq!(subscribe(&engine, "p1", "s3", "x"), Err(Failure::Refused(Refusal::NotFound)));
    assert_eq!(subscribe(&engine, "p3", "s1", "x"), Err(Failure::Refused(Refusal::NotFound)));
    assert!(subscribe(&engine, "p1", "s2", "two").expect("subscribed").1);
    assert!(subscribe(&engine, "p2", "s1", "three").expect("subscribed").1);
    let count = |which| engine.read(|read| read.subscription_count(which)).expect("reads");
    let subject = first.0.subject;
    assert_eq!([count(Subscriptions::To(1)), count(Subscriptions::To(2)), count(Subscriptions::Of(subject))], [2, 1, 2]);
    let end = |side: Side, key: &'static str| engine.submit_blocking(Lane::Interactive, move |ctx| services::unsubscribe(ctx, &side, key));
    // Only from its own side.
    for side in [Side::Service(2), Side::Profile(all(&engine)[1].subject)] {
        assert_eq!(end(side, "one"), Err(Failure::Refused(Refusal::NotFound)));
    }
    assert_eq!(end(Side::Service(1), "one"), Ok(()));
    assert_eq!(end(Side::Service(1), "one"), Err(Failure::Refused(Refusal::NotFound)));
    assert!(subscribe(&engine, "p1", "s1", "again").expect("subscribed").1);
    assert_eq!(end(Side::Profile(subject), "two"), Ok(()));
    delete(&engine, "p1").expect("deleted");
    assert_eq!([count(Subscriptions::To(1)), count(Subscriptions::To(2)), count(Subscriptions::Of(subject))], [1, 0, 0]);
    audit(&engine);
    engine.close();
}

#[test]
fn a_privacy_deletion_takes_whose_attribute_it_is_and_leaves_the_suppression() {
    let home = Home::new(1);
    let engine = home.open();
    service(&engine, "s1", None).expect("made");
    create(&engine, "hers", person(ROSA, "Rosa", ""), true).expect("created");
    create(&engine, "hers too", person("Rosa@Example.com ", "Rosa", ""), false).expect("created");
    create(&engine, "another", person("vera@example.com", "Vera", ROSA), false).expect("created");
    create(&engine, "linked", person("luis@example.com", "Luis", ""), false).expect("created");
    let rosa = email(&engine, ROSA);
    assert!(link(&engine, vec![named(&engine, Kind::CampaignPkey, "linked"), rosa]));
    for key in ["hers", "linked"] {
        subscribe(&engine, key, "s1", &format!("of {key}")).expect("subscribed");
    }
    let entries = log(&engine).len() as u64;
    let gathered = |text: &str| {
        let (shared, wanted) = (engine.shared(), about(text));
        let holds = |attributes: &[u8]| {
            Identifier::from_value(Kind::Email, &value(attributes, "email")).is_ok_and(|(own, _)| own.digest == wanted.digest)
        };
        let found = engine.read(|read| privacy::gather(read, shared, &wanted, &holds)).expect("reads").expect("few");
        found.into_iter().map(|profile| profile.pkey).collect::<Vec<_>>()
    };
    assert_eq!(gathered(ROSA), ["hers", "hers too"]);
    // To see is not to change.
    let access = ask(&engine, "access", PrivacyKind::Access, ROSA).expect("carried out");
    assert_eq!((access.no, access.status, keys(&engine).len()), (1, PrivacyStatus::Complete, 4));
    assert_eq!(facts_after(&engine, entries), [""; 0]);
    let deletion = ask(&engine, "deletion", PrivacyKind::Delete, ROSA).expect("carried out");
    assert_eq!((deletion.no, deletion.status), (2, PrivacyStatus::Complete));
    assert_eq!(keys(&engine), ["another", "linked"]);
    assert_eq!(gathered(ROSA), [""; 0]);
    assert_eq!(facts_after(&engine, entries).iter().filter(|fact| *fact == "profile_deleted").count(), 2);
    let left = engine.read(|read| read.subscriptions(Subscriptions::To(1), 0, 10)).expect("reads");
    assert_eq!(left.iter().map(|row| row.pkey.as_str()).collect::<Vec<_>>(), ["of linked"]);
    // What was denied stays denied, also for a profile that comes again.
    assert!(is_denied(&engine, PurposeSet::SALE, &[rosa]));
    assert!(is_denied(&engine, PurposeSet::SALE, &[named(&engine, Kind::CampaignPkey, "hers")]));
    create(&engine, "hers again", person(ROSA, "", ""), false).expect("created");
    assert!(all(&engine).iter().find(|profile| profile.pkey == "hers again").expect("there").opted_out);
    delete(&engine, "hers again").expect("deleted");
    let again = ask(&engine, "again", PrivacyKind::Delete, ROSA).expect("carried out");
    assert_eq!(again.status, PrivacyStatus::ErrorDataNotFound);
    assert_eq!(
        ask(&engine, "nobody", PrivacyKind::Access, "nobody@example.com").map(|row| row.status),
        Ok(PrivacyStatus::ErrorDataNotFound)
    );
    // A name is given once, whatever the rest says, and the refused request leaves nothing.
    create(&engine, "once more", person(ROSA, "", ""), false).expect("created");
    let entries = log(&engine).len() as u64;
    for (kind, text) in [(PrivacyKind::Delete, ROSA), (PrivacyKind::Access, "vera@example.com")] {
        assert_eq!(ask(&engine, "deletion", kind, text), Err(Failure::Refused(Refusal::Taken)));
    }
    assert_eq!((log(&engine).len() as u64, keys(&engine).len()), (entries, 3));
    let rows = engine.read(|read| read.privacy_requests(0, 10)).expect("reads");
    assert_eq!(rows.iter().map(|row| row.no).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for (row, name) in rows.iter().zip(["access", "deletion", "again", "nobody"]) {
        let details = engine.read(|read| privacy::details(read, engine.shared(), row)).expect("reads").expect("opens");
        assert_eq!(details.as_slice(), format!("{{\"name\":\"{name}\"}}").as_bytes());
    }
    assert!(engine.read(|read| read.vault_get(Owner::PrivacyRequest(5))).expect("reads").is_none());
    assert_lists(&engine);
    audit(&engine);
    engine.close();
}

#[test]
fn an_address_of_65_profiles_is_nobodys() {
    let home = Home::new(1);
    let engine = home.open();
    let new = |n: usize| new_profile(&engine, &format!("p{n}"), person("none@none.com", "", ""), false);
    create_all(&engine, (1..=65).map(new).collect()).expect("created");
    create(&engine, "linked", person("vera@example.com", "", ""), false).expect("created");
    let entries = log(&engine).len();
    for kind in [PrivacyKind::Delete, PrivacyKind::Access] {
        assert_eq!(ask(&engine, "first", kind, "none@none.com"), Err(Failure::Refused(Refusal::TooMany)));
    }
    assert_eq!((log(&engine).len(), keys(&engine).len()), (entries, 66));
    assert_eq!(engine.read(|read| read.privacy_request_count()).expect("reads"), 0);
    // One that only a link made hold it does not count, and its name is free still.
    delete(&engine, "p1").expect("deleted");
    assert!(link(&engine, vec![named(&engine, Kind::CampaignPkey, "linked"), email(&engine, "none@none.com")]));
    assert_eq!(ask(&engine, "first", PrivacyKind::Delete, "none@none.com").map(|row| row.status), Ok(PrivacyStatus::Complete));
    assert_eq!(keys(&engine), ["linked"]);
    audit(&engine);
    engine.close();
}

type Work = Box<dyn Fn(&mut Ctx<'_>) -> Outcome<()> + Send>;

/// Commands of one transaction see what the earlier ones did.
#[test]
fn a_privacy_deletion_sees_what_its_batch_did_before() {
    let home = Home::new(1);
    let engine = home.open();
    service(&engine, "s1", None).expect("made");
    create(&engine, "moves away", person(ROSA, "", ""), false).expect("created");
    create(&engine, "moves in", person("vera@example.com", "", ""), false).expect("created");
    create(&engine, "ends", person(ROSA, "", ""), false).expect("created");
    let go = hang(&engine);
    let forget = |work: Work| assert!(engine.submit_and_forget(Lane::Interactive, work));
    for (key, next) in [("moves away", "luis@example.com"), ("moves in", ROSA)] {
        let (engine, next) = (engine.clone(), person(next, "", ""));
        forget(Box::new(move |ctx| crate::people::change_in(ctx, &engine, key, Some(&next), None).map(|done| done.map(drop))));
    }
    let new = new_profile(&engine, "new", person(ROSA, "", ""), true);
    forget(Box::new(move |ctx| desist_engine::profiles::create(ctx, &new).map(|done| done.map(drop))));
    forget(Box::new(|ctx| services::subscribe(ctx, &pkey("new"), "s1", "one").map(|done| done.map(drop))));
    forget(Box::new(|ctx| desist_engine::profiles::delete(ctx, &pkey("ends"), Actor::Key(1))));
    let deletion = privacy_request("deletion", PrivacyKind::Delete, about(ROSA));
    forget(Box::new(move |ctx| carry_out(ctx, &deletion).map(|done| done.map(drop))));
    let second = privacy_request("deletion", PrivacyKind::Access, about(ROSA));
    forget(Box::new(move |ctx| {
        let outcome = carry_out(ctx, &second)?;
        assert!(matches!(outcome, Err(Refusal::Taken)), "the name is taken since the command before");
        Ok(Ok(()))
    }));
    let (before, commits) = (log(&engine).len(), engine.shared().counts.commits.load(std::sync::atomic::Ordering::SeqCst));
    drop(go);
    settle(&engine);
    let after = engine.shared().counts.commits.load(std::sync::atomic::Ordering::SeqCst);
    assert!(after <= commits + 4 && log(&engine).len() > before, "the one that hung, all of the above, and two to settle");
    assert!(engine.is_durable());
    assert_eq!(keys(&engine), ["moves away"], "the log says that all of them came before the deletion");
    assert!(is_denied(&engine, PurposeSet::SALE, &[email(&engine, ROSA)]));
    assert_lists(&engine);
    audit(&engine);
    engine.close();
}
