//! Who is reached by a choice, told as stories.

use desist_core::decision::{Decision, Reason};
use desist_core::fact::{Channel, Refusal};
use desist_core::identifier::Kind;
use desist_core::limits::{CLOCK_SKEW_SECONDS_MAX, HELD_MAX, HOLDERS_MAX, NAMED_MAX};
use desist_core::rules::{ApiOptIn, OptOut, Refused};

use crate::world::{BY, SALE, World, account, cookie, device, email, id, opt_out, phone};

#[test]
fn a_signal_before_the_log_in_denies_the_account_and_its_other_devices() {
    let mut world = World::new();
    let (rosa, laptop, phone) = (account(1), cookie(1), device(2));
    world.log_in(rosa, phone);
    world.act(opt_out(Channel::Gpc, &[laptop])).expect("taken");
    assert!(!world.denied(rosa), "nobody knows yet whose laptop it is");
    world.log_in(rosa, laptop);
    assert!(world.denied(rosa));
    assert!(world.denied(laptop));
    assert_eq!(world.decision(&[phone]), (Decision::Deny, Reason::Linked));
}

#[test]
fn whoever_logs_in_later_on_the_device_that_opted_out_is_denied_too() {
    let mut world = World::new();
    let laptop = cookie(1);
    world.act(opt_out(Channel::Gpc, &[laptop])).expect("taken");
    for n in 1..=5 {
        world.log_in(account(n), laptop);
        assert!(world.denied(account(n)), "account {n}");
    }
}

#[test]
fn a_second_account_on_another_device_of_a_denied_account_is_not_denied() {
    let mut world = World::new();
    let (rosa, sam, laptop, tablet) = (account(1), account(2), cookie(1), cookie(2));
    world.opts_out(&[laptop]);
    world.log_in(rosa, laptop);
    world.log_in(rosa, tablet);
    world.log_in(sam, tablet);
    assert!(!world.denied(sam), "one hop, no further");
    assert!(world.denied(tablet), "who sits there may be Rosa");
    assert_eq!(world.decision(&[sam, tablet]).0, Decision::Deny, "deny wins");
}

#[test]
fn five_thousand_profiles_with_one_telephone_stay_five_thousand_people() {
    let mut world = World::new();
    let shop = phone(1);
    let pkey = |n| id(Kind::CampaignPkey, n);
    let mut profiles = Vec::new();
    for n in 0..5_000 {
        profiles.push(world.profile(&[pkey(n), shop]));
        if n == 10 {
            // One of them opts out while the telephone still passes for a family's.
            world.opts_out(&[pkey(3)]);
        }
    }
    world.opts_out(&[pkey(4_000)]);
    let denied: Vec<_> = (0..5_000).filter(|n| world.denied(pkey(*n))).collect();
    assert_eq!(denied, [3, 4_000]);
    assert!(world.denied(shop), "its decisions were denied through profile 3, and stay so");

    let recorded = world.opts_out(&[shop]);
    assert_eq!(recorded.unreached, [world.no(&shop)], "somebody has to look at the 5,000");
    let denied: Vec<_> = (0..5_000).filter(|n| world.denied(pkey(*n))).collect();
    assert_eq!(denied, [3, 4_000]);
    assert_eq!(world.decision(&[pkey(1), shop]), (Decision::Deny, Reason::OptedOut));
    let reached: Vec<_> = profiles.iter().filter(|one| world.subject_denied(**one)).copied().collect();
    assert_eq!(reached, [profiles[3], profiles[4_000]]);

    world.delete(profiles[17]);
    assert_eq!(world.memory.identifiers[&world.no(&shop)].holders, 4_999);
}

#[test]
fn an_opt_in_of_one_account_never_changes_another_that_shares_the_e_mail() {
    let mut world = World::new();
    let (rosa, sam, home) = (account(1), account(2), email(1));
    world.link(&[rosa, home]).expect("linked");
    world.link(&[sam, home]).expect("linked");
    world.opts_out(&[home]);
    world.opts_in(&[rosa]);
    assert!(world.denied(sam));
    assert!(world.denied(home));
    assert!(world.denied(rosa), "the e-mail's own word stands, and Rosa holds it");
    world.opts_in(&[home]);
    assert!(world.denied(sam), "whoever reads the mail is not Sam's account");
}

#[test]
fn an_opt_in_on_a_bare_identifier_keeps_what_others_were_denied_through_it() {
    let mut world = World::new();
    let (rosa, sam, home) = (account(1), account(2), email(1));
    world.link(&[rosa, home]).expect("linked");
    world.link(&[sam, home]).expect("linked");
    world.opts_out(&[rosa]);
    assert!(!world.denied(sam));
    world.unlink(&[rosa, home]).expect("unlinked");
    assert!(world.denied(sam), "what was denied through Rosa stays on the e-mail, and Sam holds it");
    world.opts_in(&[home]);
    assert!(world.denied(sam));
}

#[test]
fn an_opt_in_answers_the_account_and_the_devices_that_nobody_else_uses() {
    let mut world = World::new();
    let (rosa, sam, own, family) = (account(1), account(2), cookie(1), cookie(2));
    world.log_in(rosa, own);
    world.log_in(rosa, family);
    world.log_in(sam, family);
    world.opts_out(&[rosa, own, family]);
    assert!(world.denied(sam), "the family's device opted out itself");
    world.opts_in(&[rosa]);
    assert_eq!(world.decision(&[rosa]), (Decision::Allow, Reason::OptedIn));
    assert_eq!(world.decision(&[own]), (Decision::Allow, Reason::OptedIn));
    assert!(world.denied(family));
    assert!(world.denied(sam));
}

#[test]
fn an_opt_in_needs_two_steps_one_subject_and_the_consumer() {
    let mut world = World::new();
    let (rosa, sam, home) = (account(1), account(2), email(1));
    world.opts_out(&[rosa, home]);
    for channel in [Channel::Api, Channel::Import, Channel::Operator] {
        assert_eq!(world.ask(&[rosa], channel), Err(Refused::NotTheConsumer));
    }
    assert_eq!(world.ask(&[], Channel::Form), Err(Refused::NobodyNamed));
    assert_eq!(world.ask(&[rosa, email(2)], Channel::Form), Err(Refused::NotOneSubject), "never seen");
    assert_eq!(world.ask(&[home, cookie(9)], Channel::Form), Err(Refused::NotOneSubject), "nobody holds both");
    world.link(&[sam, home]).expect("linked");
    assert_eq!(world.ask(&[sam, rosa], Channel::Form), Err(Refused::NotOneSubject), "two accounts");
    world.now += 5;
    let target = world.ask(&[rosa], Channel::Form).expect("one account");
    assert!(world.denied(rosa), "the first step changes nothing");
    // The e-mail still denies Rosa, since she named it; so does her own line until the second step.
    world.confirm(&target);
    world.unlink(&[rosa, home]).expect("unlinked");
    assert!(world.denied(rosa), "what the e-mail denied stays");
    world.opts_in(&[rosa]);
    assert!(!world.denied(rosa));
}

#[test]
fn two_identifiers_that_two_people_hold_name_nobody_who_could_opt_in() {
    let mut world = World::new();
    let (home, line) = (email(1), phone(1));
    world.link(&[account(1), home, line]).expect("linked");
    world.link(&[account(2), home, line]).expect("linked");
    world.opts_out(&[home]);
    for named in [[home, line], [line, home]] {
        assert_eq!(world.ask(&named, Channel::Form), Err(Refused::NotOneSubject));
    }
    let twice = world.ask(&[home, home], Channel::Form).expect("one identifier, said twice");
    assert_eq!((twice.subject, twice.named.len()), (None, 1));
}

#[test]
fn an_identifier_of_too_many_cannot_opt_in() {
    let mut world = World::new();
    let desk = account(1);
    world.opts_out(&[email(0)]);
    let first = world.ask(&[desk], Channel::Form).expect("nobody holds it yet");
    for n in 0..=HOLDERS_MAX as u32 {
        world.profile(&[desk, email(n)]);
    }
    assert!(world.denied(desk), "through the first profile's e-mail");
    assert_eq!(world.ask(&[desk], Channel::Form), Err(Refused::NotOneSubject));
    world.now += 1;
    world.confirm(&first);
    assert!(world.denied(desk), "the target is no longer one consumer's");
}

#[test]
fn a_profile_that_is_deleted_and_created_again_is_still_denied() {
    let mut world = World::new();
    let home = email(1);
    let pkey = |n| id(Kind::CampaignPkey, n);
    let first = world.profile(&[pkey(1), home]);
    world.api_true(first, &[pkey(1), home]);
    world.delete(first);
    let second = world.profile(&[pkey(2), home]);
    assert!(world.subject_denied(second));
    assert!(world.denied(pkey(2)));
    assert_eq!(world.api_false(second), ApiOptIn::Refused(Refusal::NotOwn));
    assert!(world.subject_denied(second));
}

#[test]
fn a_deleted_profile_keeps_its_denial_on_an_e_mail_that_never_opted_out() {
    let mut world = World::new();
    let (home, pkey) = (email(1), id(Kind::CampaignPkey, 1));
    let first = world.profile(&[pkey, home]);
    world.opts_out(&[pkey]);
    world.delete(first);
    assert!(world.denied(pkey));
    assert!(world.denied(home));
    let second = world.profile(&[pkey, home]);
    assert!(world.subject_denied(second));
}

#[test]
fn api_false_ends_only_what_the_api_said_on_the_same_profile() {
    let mut world = World::new();
    let (home, pkey) = (email(1), id(Kind::CampaignPkey, 1));
    let profile = world.profile(&[pkey, home]);
    assert_eq!(world.api_false(profile), ApiOptIn::AlreadyAllowed);
    world.api_true(profile, &[pkey, home]);
    let wish = |world: &mut World, alone, policy| {
        world.batch(|batch, memory| batch.api_opt_in(memory, profile, SALE, alone, policy, BY)).expect("memory never fails")
    };
    assert_eq!(wish(&mut world, false, true), ApiOptIn::Refused(Refusal::WholeRecord));
    assert_eq!(wish(&mut world, true, false), ApiOptIn::Refused(Refusal::Policy));
    assert!(world.denied(home) && world.denied(pkey) && world.subject_denied(profile));
    assert_eq!(world.api_false(profile), ApiOptIn::Ended);
    assert!(!world.denied(home) && !world.denied(pkey) && !world.subject_denied(profile));

    // The consumer says it too: now the API cannot end it.
    world.api_true(profile, &[pkey, home]);
    world.opts_out(&[home]);
    assert_eq!(world.api_false(profile), ApiOptIn::Refused(Refusal::NotOwn));
    assert!(world.denied(home) && world.denied(pkey) && world.subject_denied(profile));
}

#[test]
fn api_false_of_one_profile_leaves_the_other_that_shares_its_e_mail() {
    let mut world = World::new();
    let home = email(1);
    let pkey = |n| id(Kind::CampaignPkey, n);
    let (one, other) = (world.profile(&[pkey(1), home]), world.profile(&[pkey(2), home]));
    world.api_true(one, &[pkey(1), home]);
    assert!(world.subject_denied(other), "the e-mail was named, and the other profile holds it");
    assert_eq!(world.api_false(other), ApiOptIn::Refused(Refusal::NotOwn));
    assert_eq!(world.api_false(one), ApiOptIn::Refused(Refusal::NotOwn), "the e-mail is not this profile's alone");
    assert!(world.subject_denied(one) && world.subject_denied(other) && world.denied(home));
}

#[test]
fn an_api_opt_out_does_not_hide_a_consumers_when_a_link_ends() {
    let mut world = World::new();
    let (home, pkey) = (email(1), id(Kind::CampaignPkey, 1));
    let profile = world.profile(&[pkey, home]);
    world.opts_out(&[home]);
    world.opts_in(&[pkey]);
    assert!(world.subject_denied(profile), "through the e-mail's own word");
    world.api_true(profile, &[pkey]);
    world.update(profile, &[pkey, home], &[pkey]);
    assert_eq!(world.api_false(profile), ApiOptIn::Refused(Refusal::NotOwn), "the consumer's word stays with the profile");
    assert!(world.subject_denied(profile));
}

#[test]
fn what_another_profiles_api_denied_stays_when_the_link_ends() {
    let mut world = World::new();
    let (pkey, line) = (id(Kind::CampaignPkey, 1), phone(1));
    let (uid, other) = (id(Kind::Uid2, 1), id(Kind::CampaignPkey, 2));
    let profile = world.profile(&[pkey, uid, line]);
    let second = world.profile(&[other, line]);
    world.api_true(second, &[other, line]);
    world.api_true(profile, &[pkey, uid]);
    world.opts_in(&[pkey]);
    assert!(world.subject_denied(profile), "through its telephone, by the other profile's word");
    world.update(profile, &[pkey, uid, line], &[pkey]);
    assert_eq!(world.api_false(profile), ApiOptIn::Refused(Refusal::NotOwn));
    assert!(world.subject_denied(profile));
}

#[test]
fn import_and_operator_opt_outs_cannot_be_ended_by_the_api() {
    for channel in [Channel::Import, Channel::Operator] {
        let mut world = World::new();
        let (home, pkey) = (email(1), id(Kind::CampaignPkey, 1));
        let profile = world.profile(&[pkey, home]);
        world.act(opt_out(channel, &[home])).expect("taken");
        assert_eq!(world.api_false(profile), ApiOptIn::Refused(Refusal::NotOwn));
        world.api_true(profile, &[pkey, home]);
        assert_eq!(world.api_false(profile), ApiOptIn::Refused(Refusal::NotOwn));
        assert!(world.denied(home) && world.subject_denied(profile));
    }
}

#[test]
fn a_later_opt_in_of_the_consumer_answers_an_opt_out_of_the_business() {
    let mut world = World::new();
    world.act(opt_out(Channel::Import, &[cookie(1)])).expect("taken");
    assert!(world.denied(cookie(1)));
    world.opts_in(&[cookie(1)]);
    assert_eq!(world.decision(&[cookie(1)]), (Decision::Allow, Reason::OptedIn));
    world.now += 1;
    world.act(opt_out(Channel::Import, &[cookie(1)])).expect("taken");
    assert!(world.denied(cookie(1)), "a later list of the business denies again");
}

fn permutations<T: Copy>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for at in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(at);
        all.extend(permutations(&rest).into_iter().map(|mut tail| {
            tail.insert(0, first);
            tail
        }));
    }
    all
}

#[derive(Clone, Copy)]
enum Step {
    Link([usize; 2]),
    OptOut(usize),
}

#[test]
fn the_order_of_links_and_opt_outs_does_not_matter() {
    use Step::{Link, OptOut};
    let all = [account(1), account(2), email(1), phone(1), cookie(1), cookie(2)];
    let stories = [
        vec![Link([0, 2]), Link([0, 4]), Link([1, 4]), Link([1, 5]), OptOut(4)],
        vec![Link([0, 2]), Link([1, 2]), Link([1, 5]), OptOut(2), OptOut(5)],
        vec![Link([0, 4]), Link([1, 4]), Link([1, 3]), Link([0, 2]), OptOut(0)],
    ];
    for story in stories {
        let mut seen = None;
        for order in permutations(&story) {
            let mut world = World::new();
            for step in order {
                match step {
                    Link([a, b]) => assert!(world.link(&[all[a], all[b]]).is_ok()),
                    OptOut(a) => drop(world.opts_out(&[all[a]])),
                }
            }
            let denied = all.map(|one| world.denied(one));
            assert_eq!(*seen.get_or_insert(denied), denied);
        }
    }
}

#[test]
fn a_denial_that_stands_at_the_65th_holder_stays() {
    let mut world = World::new();
    let desk = phone(1);
    for n in 0..HOLDERS_MAX as u32 {
        world.link(&[account(n), desk]).expect("linked");
    }
    world.opts_out(&[desk]);
    world.opts_in(&[account(0)]);
    assert!(world.denied(account(0)), "through the telephone");
    world.link(&[account(64), desk]).expect("linked");
    assert!(world.memory.identifiers[&world.no(&desk)].shared);
    for n in 0..64 {
        assert!(world.denied(account(n)), "account {n}");
    }
    assert!(!world.denied(account(64)), "nothing passes any more");
    assert!(world.denied(desk));
}

#[test]
fn the_65th_holder_does_not_carry_one_persons_choice_to_another() {
    let mut world = World::new();
    let desk = phone(1);
    for n in 0..HOLDERS_MAX as u32 {
        world.link(&[account(n), desk]).expect("linked");
    }
    world.opts_out(&[account(0)]);
    world.link(&[account(64), desk]).expect("linked");
    assert!(world.denied(desk) && world.denied(account(0)));
    for n in 1..=64 {
        assert!(!world.denied(account(n)), "account {n}");
    }
}

#[test]
fn an_identifier_of_too_many_does_not_wear_out_the_others_named_with_it() {
    let mut world = World::new();
    let (desk, shop, own) = (phone(1), account(900), cookie(1));
    for n in 0..=HOLDERS_MAX as u32 {
        world.profile(&[id(Kind::CampaignPkey, n), desk, shop]);
    }
    let before = world.counters.subjects;
    for _ in 0..3 {
        world.opts_out(&[desk, own]);
    }
    assert_eq!(world.counters.subjects, before + 1, "one person at the shop, three times");
    for _ in 0..3 {
        world.opts_out(&[shop, own]);
        world.opts_out(&[shop, desk]);
    }
    assert_eq!(world.counters.subjects, before + 2, "nobody is made up for what is shared alone");
    assert!(world.denied(own) && world.denied(desk) && world.denied(shop));
}

#[test]
fn unlinking_keeps_the_denial_on_both_sides() {
    let mut world = World::new();
    let (rosa, home, tablet) = (account(1), email(1), cookie(1));
    world.link(&[rosa, home, tablet]).expect("linked");
    world.opts_out(&[rosa]);
    world.unlink(&[rosa, home, tablet]).expect("unlinked");
    assert!(world.denied(rosa) && world.denied(home) && world.denied(tablet));
    assert_eq!(world.unlink(&[rosa, home]), Ok(None), "it was unlinked before");

    let mut world = World::new();
    world.link(&[rosa, home]).expect("linked");
    world.opts_out(&[home]);
    world.opts_in(&[rosa]);
    world.unlink(&[rosa, home]).expect("unlinked");
    assert!(world.denied(home) && world.denied(rosa));
}

#[test]
fn unlinking_several_at_once_carries_nothing_from_one_to_another() {
    let mut world = World::new();
    let (rosa, home, line) = (account(1), email(1), phone(1));
    world.link(&[rosa, home, line]).expect("linked");
    world.opts_out(&[home]);
    world.opts_in(&[rosa]);
    assert!(!world.denied(line), "Rosa's own word allows, and the e-mail is two hops away");
    world.unlink(&[rosa, home, line]).expect("unlinked");
    assert!(world.denied(rosa) && world.denied(home));
    assert!(!world.denied(line));
}

#[test]
fn an_account_that_lets_its_name_go_stays_denied_under_it() {
    let mut world = World::new();
    let (pkey, rosa, home) = (id(Kind::CampaignPkey, 1), account(1), email(1));
    let profile = world.profile(&[pkey, rosa, home]);
    world.opts_out(&[home]);
    world.opts_in(&[pkey]);
    assert!(world.denied(rosa), "through the e-mail of the account");
    world.update(profile, &[pkey, rosa, home], &[pkey, home]);
    assert!(world.denied(rosa));
}

#[test]
fn a_signal_and_an_opt_in_within_one_second() {
    let mut world = World::new();
    let laptop = cookie(1);
    let target = world.ask(&[laptop], Channel::Form).expect("one identifier");
    world.opts_out(&[laptop]);
    world.confirm(&target);
    assert!(!world.denied(laptop), "both timed by the server: the later entry wins");
    world.opts_out(&[laptop]);
    assert!(world.denied(laptop), "and again");
    world.confirm(&target);
    assert!(!world.denied(laptop));
    world.act(OptOut { acted_at: Some(world.now), ..opt_out(Channel::Phone, &[laptop]) }).expect("taken");
    assert!(world.denied(laptop), "a caller's time at the same second denies");
    world.confirm(&target);
    assert!(world.denied(laptop), "whatever comes later within that second");
    world.opts_in(&[laptop]);
    assert!(!world.denied(laptop), "a second later it is plain who was last");
}

#[test]
fn a_letter_that_is_keyed_in_six_days_later_counts_from_when_it_was_written() {
    let mut world = World::new();
    let rosa = account(1);
    let written = world.now;
    world.now += 3 * 86_400;
    world.opts_out(&[rosa]);
    world.opts_in(&[rosa]);
    world.now = written + 6 * 86_400;
    world.act(OptOut { acted_at: Some(written), ..opt_out(Channel::Mail, &[rosa]) }).expect("taken");
    assert!(!world.denied(rosa), "Rosa opted in after she wrote");
    world.act(OptOut { acted_at: Some(written), ..opt_out(Channel::Mail, &[account(2)]) }).expect("taken");
    assert!(world.denied(account(2)), "nobody said anything later");
    world.act(OptOut { acted_at: Some(written + 5 * 86_400), ..opt_out(Channel::Mail, &[rosa]) }).expect("taken");
    assert!(world.denied(rosa), "a later letter");
}

#[test]
fn a_time_before_all_computers_can_be_written_down() {
    let mut world = World::new();
    world.act(OptOut { acted_at: Some(i64::MIN), ..opt_out(Channel::Mail, &[phone(1)]) }).expect("taken");
    let entry = &world.entries[0];
    assert_eq!(&desist_core::fact::Entry::decode(&entry.encode()).expect("an entry"), entry);
    assert!(world.denied(phone(1)));
}

#[test]
fn no_link_and_no_deletion_makes_an_opt_in() {
    let mut world = World::new();
    let (shared, one, other) = (account(1), id(Kind::CampaignPkey, 1), id(Kind::CampaignPkey, 2));
    world.profile(&[one, shared]);
    let second = world.profile(&[other, shared]);
    world.opts_in(&[one]);
    assert_eq!(world.decision(&[one]).1, Reason::OptedIn);
    assert_eq!(world.decision(&[shared]).1, Reason::NoRecord, "the account was two profiles'");
    world.delete(second);
    assert_eq!(world.decision(&[shared]).1, Reason::NoRecord);
    world.link(&[one, account(2)]).expect("linked");
    assert_eq!(world.decision(&[account(2)]).1, Reason::NoRecord);
}

#[test]
fn a_time_in_the_future_is_refused() {
    let mut world = World::new();
    let at = |seconds| OptOut { acted_at: Some(1_000_000 + seconds), ..opt_out(Channel::Phone, &[phone(1)]) };
    let before = world.clone();
    assert_eq!(world.act(at(CLOCK_SKEW_SECONDS_MAX + 1)), Err(Refused::Future));
    assert_eq!((&world.entries, world.counters), (&before.entries, before.counters));
    assert!(world.act(at(CLOCK_SKEW_SECONDS_MAX)).is_ok());
}

#[test]
fn a_kept_denial_survives_a_clock_that_was_set_back() {
    let mut world = World::new();
    let (rosa, home) = (account(1), email(1));
    world.link(&[rosa, home]).expect("linked");
    world.opts_out(&[home]);
    world.opts_in(&[rosa]);
    world.now -= 3_600;
    world.unlink(&[rosa, home]).expect("unlinked");
    assert!(world.denied(rosa));
}

#[test]
fn naming_the_same_two_twice_makes_one_person() {
    let mut world = World::new();
    let first = world.opts_out(&[email(1), cookie(1)]);
    let second = world.opts_out(&[cookie(1), email(1)]);
    assert_eq!((first.subject, world.counters.subjects), (second.subject, 1));
    let bare = world.opts_out(&[email(2), email(2)]);
    assert_eq!((bare.subject, world.counters.subjects), (None, 1), "one identifier said twice is one identifier");
    assert_eq!(world.link(&[email(3), email(3)]), Err(Refused::NothingToLink));
    assert_eq!(world.unlink(&[email(1), email(1)]), Err(Refused::NothingToLink));
}

#[test]
fn what_is_missing_or_too_much_is_refused_and_changes_nothing() {
    let mut world = World::new();
    let many: Vec<_> = (0..=NAMED_MAX as u32).map(email).collect();
    assert_eq!(world.act(opt_out(Channel::Form, &[])), Err(Refused::NobodyNamed));
    assert_eq!(world.act(opt_out(Channel::Form, &many)), Err(Refused::TooManyNamed));
    let nothing = OptOut { purposes: desist_core::purpose::PurposeSet::EMPTY, ..opt_out(Channel::Form, &[email(1)]) };
    assert_eq!(world.act(nothing), Err(Refused::NoPurpose));
    assert_eq!(world.link(&[email(1)]), Err(Refused::NothingToLink));
    assert_eq!(world.unlink(&[email(1)]), Err(Refused::NothingToLink));
    assert_eq!((world.entries.len(), world.counters), (0, desist_core::rules::Counters::default()));
    assert!(world.act(opt_out(Channel::Form, &many[1..])).is_ok());
}

#[test]
fn a_full_account_takes_no_more_links_but_still_opts_out() {
    let mut world = World::new();
    let rosa = account(1);
    for n in 2..HELD_MAX as u32 {
        world.log_in(rosa, cookie(n));
    }
    world.opts_out(&[rosa, cookie(9_999)]);
    assert_eq!(world.link(&[rosa, cookie(10_000)]), Err(Refused::HoldsTooMany));
    assert_eq!(world.link(&[rosa, cookie(9_999)]), Ok(None), "it was known");
    world.opts_out(&[rosa, cookie(10_000)]);
    let subject = world.opts_out(&[rosa]).subject.expect("an account");
    assert_eq!(world.memory.subjects[&subject].held, HELD_MAX);
    assert!(world.denied(cookie(9_999)) && world.denied(cookie(10_000)) && world.denied(rosa) && world.denied(cookie(3)));
}

#[test]
fn strangers_with_many_cookies_cannot_cut_an_e_mail_off_from_its_account() {
    let mut world = World::new();
    let (home, pkey) = (email(1), id(Kind::CampaignPkey, 1));
    for n in 0..100 {
        world.opts_out(&[home, cookie(n)]);
        assert!(world.denied(cookie(n)));
    }
    let profile = world.profile(&[pkey, home]);
    assert!(world.subject_denied(profile) && world.denied(pkey));
}

#[test]
fn a_wrong_link_between_two_accounts_can_be_undone() {
    let mut world = World::new();
    let (pkey, first, second) = (id(Kind::CampaignPkey, 1), account(1), account(2));
    world.link(&[pkey, first]).expect("linked");
    world.link(&[first, second]).expect("linked");
    assert!(world.unlink(&[pkey, second]).expect("known").is_some());
    world.opts_out(&[pkey]);
    assert!(world.denied(first) && !world.denied(second));
    assert!(world.unlink(&[pkey, first]).expect("known").is_some());
}

#[test]
fn people_who_are_named_with_one_telephone_stay_different_people() {
    let mut world = World::new();
    let desk = phone(1);
    for n in 0..10 {
        world.opts_out(&[email(n), desk]);
    }
    assert_eq!(world.counters.subjects, 10);
    world.opts_out(&[email(10), cookie(1)]);
    assert_eq!(world.counters.subjects, 11);
}

#[test]
fn naming_somebodys_e_mail_with_a_device_of_ones_own_opts_nobody_in() {
    let mut world = World::new();
    let home = email(1);
    world.opts_out(&[home, cookie(1)]);
    world.opts_out(&[home, cookie(2)]);
    assert_eq!(world.ask(&[home, cookie(2)], Channel::Form), Err(Refused::NotOneSubject));
    assert!(world.denied(home) && world.denied(cookie(1)) && world.denied(cookie(2)));

    let (pkey, line) = (id(Kind::CampaignPkey, 1), phone(1));
    let profile = world.profile(&[pkey, email(2), line]);
    world.api_true(profile, &[pkey]);
    assert_eq!(world.ask(&[email(2), line], Channel::Form), Err(Refused::NotOneSubject));
    assert!(world.denied(pkey));
}

#[test]
fn a_full_profile_still_holds_the_e_mail_that_it_has() {
    let mut world = World::new();
    let pkey = id(Kind::CampaignPkey, 1);
    let profile = world.profile(&[pkey, email(1)]);
    for n in 0..HELD_MAX as u32 {
        let _ = world.link(&[pkey, cookie(n)]);
    }
    world.update(profile, &[pkey, email(1)], &[pkey, email(2), phone(2)]);
    world.opts_out(&[email(2)]);
    assert!(world.denied(pkey));
}
