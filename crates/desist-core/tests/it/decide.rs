//! The one decision point, as a table.

use desist_core::decision::{AgeBand, Context, Decision, Reason, Verdict, decide};
use desist_core::identifier::Kind::{self, CookieId, CustomerId, DeviceId, Email, Maid, Phone};
use desist_core::purpose::{BUILT_IN, Model, PurposeSet, Purposes};

const SALE: PurposeSet = PurposeSet::SALE;
const NOBODY: Context = Context { gpc: false, age_band: None };
const UNKNOWN: Verdict = Verdict { denied: PurposeSet::EMPTY, linked: PurposeSet::EMPTY, opted_in: PurposeSet::EMPTY };
const GPC: Context = Context { gpc: true, age_band: None };

const fn aged(age_band: AgeBand) -> Context {
    Context { gpc: false, age_band: Some(age_band) }
}

const fn denied(purposes: PurposeSet) -> Verdict {
    Verdict { denied: purposes, ..UNKNOWN }
}
const fn linked(purposes: PurposeSet) -> Verdict {
    Verdict { linked: purposes, ..UNKNOWN }
}
const fn opted_in(purposes: PurposeSet) -> Verdict {
    Verdict { opted_in: purposes, ..UNKNOWN }
}

/// What, who is named, whether the purpose needs a yes, the context, the answer.
type Row = (&'static str, &'static [(Kind, Verdict)], bool, Context, (Decision, Reason));

#[test]
fn every_reason_and_which_comes_first() {
    use AgeBand::{Adult, From13To15, From16To17, Under13};
    use Decision::{Allow, Deny};
    const TABLE: &[Row] = &[
        ("nobody is named", &[], false, NOBODY, (Allow, Reason::NoRecord)),
        ("nothing is known", &[(Email, UNKNOWN)], false, NOBODY, (Allow, Reason::NoRecord)),
        ("nothing is known and it needs a yes", &[(Email, UNKNOWN)], true, NOBODY, (Deny, Reason::NotOptedIn)),
        ("nobody is named and it needs a yes", &[], true, NOBODY, (Deny, Reason::NotOptedIn)),
        ("the person opted out", &[(Email, denied(SALE))], false, NOBODY, (Deny, Reason::OptedOut)),
        ("the device opted out", &[(CookieId, denied(SALE))], false, NOBODY, (Deny, Reason::Device)),
        ("a device that is linked", &[(CookieId, linked(SALE))], false, NOBODY, (Deny, Reason::Linked)),
        ("an account that is linked", &[(CustomerId, linked(SALE))], false, NOBODY, (Deny, Reason::Linked)),
        ("another purpose", &[(Email, denied(PurposeSet::PROFILING))], false, NOBODY, (Allow, Reason::NoRecord)),
        ("opted in", &[(Email, opted_in(SALE))], false, NOBODY, (Allow, Reason::OptedIn)),
        ("opted in where it needs a yes", &[(Email, opted_in(SALE))], true, NOBODY, (Allow, Reason::OptedIn)),
        ("opted in to something else", &[(Email, opted_in(PurposeSet::ADMT))], true, NOBODY, (Deny, Reason::NotOptedIn)),
        // Several identifiers: deny wins, and the plainest reason is told, in whatever order.
        ("one yes, one unknown", &[(Email, opted_in(SALE)), (Phone, UNKNOWN)], true, NOBODY, (Allow, Reason::OptedIn)),
        ("one yes, one no", &[(Email, opted_in(SALE)), (Phone, denied(SALE))], false, NOBODY, (Deny, Reason::OptedOut)),
        ("one yes, one linked no", &[(Maid, linked(SALE)), (Email, opted_in(SALE))], true, NOBODY, (Deny, Reason::Linked)),
        ("linked, then device", &[(Email, linked(SALE)), (DeviceId, denied(SALE))], false, NOBODY, (Deny, Reason::Device)),
        ("device, then linked", &[(DeviceId, denied(SALE)), (Email, linked(SALE))], false, NOBODY, (Deny, Reason::Device)),
        ("device, then person", &[(Maid, denied(SALE)), (Phone, denied(SALE))], false, NOBODY, (Deny, Reason::OptedOut)),
        ("person, then linked", &[(Phone, denied(SALE)), (Email, linked(SALE))], false, NOBODY, (Deny, Reason::OptedOut)),
        // Minors.
        ("a child", &[(Email, UNKNOWN)], false, aged(Under13), (Deny, Reason::Minor)),
        ("a teenager", &[], false, aged(From13To15), (Deny, Reason::Minor)),
        ("sixteen", &[], false, aged(From16To17), (Allow, Reason::NoRecord)),
        ("an adult", &[], false, aged(Adult), (Allow, Reason::NoRecord)),
        ("a teenager who opted in", &[(Email, opted_in(SALE))], false, aged(From13To15), (Allow, Reason::OptedIn)),
        ("a teenager who opted out", &[(Email, denied(SALE))], false, aged(From13To15), (Deny, Reason::OptedOut)),
        ("a teenager where it needs a yes", &[], true, aged(From13To15), (Deny, Reason::Minor)),
        ("an adult where it needs a yes", &[], true, aged(Adult), (Deny, Reason::NotOptedIn)),
        // A signal in the request wins over what is stored.
        ("a signal", &[], false, GPC, (Deny, Reason::Gpc)),
        ("a signal of one who opted in", &[(Email, opted_in(SALE))], false, GPC, (Deny, Reason::Gpc)),
        ("a signal of one who opted out", &[(Email, denied(SALE))], false, GPC, (Deny, Reason::Gpc)),
        ("a signal of a child", &[], false, Context { gpc: true, age_band: Some(Under13) }, (Deny, Reason::Gpc)),
        ("a signal where it needs a yes", &[], true, GPC, (Deny, Reason::Gpc)),
    ];
    for (what, verdicts, needs_opt_in, context, expected) in TABLE {
        assert_eq!(decide(SALE, *needs_opt_in, verdicts.iter().copied(), *context), *expected, "{what}");
    }
    for reason in [
        Reason::NoRecord,
        Reason::OptedIn,
        Reason::OptedOut,
        Reason::Linked,
        Reason::Device,
        Reason::Gpc,
        Reason::Minor,
        Reason::NotOptedIn,
    ] {
        assert!(TABLE.iter().any(|row| row.4.1 == reason), "{reason:?}");
    }
}

#[test]
fn a_signal_and_an_age_touch_no_other_purpose() {
    let selling = ["sale", "sharing", "targeted_advertising"];
    let declared = ("email_marketing", PurposeSet(1 << 16));
    for (name, purpose) in BUILT_IN.into_iter().chain([declared]) {
        for context in [GPC, aged(AgeBand::Under13)] {
            let (decision, _) = decide(purpose, false, [(Email, UNKNOWN)], context);
            assert_eq!(decision == Decision::Deny, selling.contains(&name), "{name} {context:?}");
        }
        let (_, reason) = decide(purpose, false, [(Email, denied(purpose))], GPC);
        assert_eq!(reason == Reason::Gpc, selling.contains(&name), "{name}");
    }
}

#[test]
fn a_declared_purpose_needs_a_yes_if_it_says_so() {
    let mut purposes = Purposes::default();
    purposes.insert("email_marketing", 16, Model::OptIn);
    purposes.insert("newsletter", 17, Model::OptOut);
    let ask = |name: &str, verdict| {
        let purpose = purposes.get(name).expect("declared");
        decide(purpose, purposes.opt_in().contains(purpose), [(Email, verdict)], NOBODY)
    };
    assert_eq!(ask("email_marketing", UNKNOWN), (Decision::Deny, Reason::NotOptedIn));
    assert_eq!(ask("email_marketing", opted_in(PurposeSet(1 << 16))), (Decision::Allow, Reason::OptedIn));
    assert_eq!(ask("newsletter", UNKNOWN), (Decision::Allow, Reason::NoRecord));
    assert_eq!(ask("sale", UNKNOWN), (Decision::Allow, Reason::NoRecord));
    assert_eq!(purposes.names(PurposeSet(1 | 1 << 17 | 1 << 16)), ["sale", "email_marketing", "newsletter"]);
}

#[test]
fn words_on_the_wire_do_not_change() {
    let reasons = [
        Reason::NoRecord,
        Reason::OptedIn,
        Reason::OptedOut,
        Reason::Linked,
        Reason::Device,
        Reason::Gpc,
        Reason::Minor,
        Reason::Contract,
        Reason::NotOptedIn,
        Reason::Stale,
    ];
    let names = reasons.map(|reason| serde_json::to_value(reason).expect("a word"));
    assert_eq!(names, ["no_record", "opted_in", "opted_out", "linked", "device", "gpc", "minor", "contract", "not_opted_in", "stale"]);
    let ages =
        [AgeBand::Under13, AgeBand::From13To15, AgeBand::From16To17, AgeBand::Adult].map(|age| serde_json::to_value(age).expect("a word"));
    assert_eq!(ages, ["under_13", "13_15", "16_17", "18_plus"]);
}
