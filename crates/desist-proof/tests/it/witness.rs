use desist_proof::checkpoint::{Checkpoint, SignedCheckpoint};
use desist_proof::note::Verifier;
use desist_proof::proof::{consistency, root};
use desist_proof::tile::Appender;
use desist_proof::witness::{AddCheckpoint, PROOF_LINES_MAX, Refused, RequestError, fuzz_add_checkpoint};
use proptest::prelude::*;

use crate::world::{ORIGIN, Table, leaf, log_key, mutations};

/// C2SP tlog-witness, section "add-checkpoint".
const C2SP: &str = "old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
";

fn of_size(table: &Table, size: u64) -> Checkpoint {
    Checkpoint::new(ORIGIN, size, root(size, &mut table.reader()).expect("tiles")).expect("an origin")
}

fn request(table: &Table, from: u64, to: u64) -> AddCheckpoint {
    let proof = if from > to { Vec::new() } else { consistency(from, to, &mut table.reader()).expect("tiles") };
    AddCheckpoint { old_size: from, proof, checkpoint: SignedCheckpoint::sign(of_size(table, to), &log_key()).expect("the log's key") }
}

fn known() -> Vec<Verifier> {
    vec![log_key().verifier().clone()]
}

#[test]
fn the_example_of_the_source_reads_back() {
    let read = AddCheckpoint::parse(C2SP).expect("a request");
    assert_eq!((read.old_size, read.proof.len(), read.checkpoint.unverified().size()), (20_852_014, 4, 20_852_163));
    assert_eq!(read.to_string(), C2SP);
}

#[test]
fn what_is_wrong_with_a_body_is_named() {
    let (head, checkpoint) = C2SP.split_once("\n\n").expect("two parts");
    for (body, error) in [
        (String::new(), RequestError::NoCheckpoint),
        (head.to_owned(), RequestError::NoCheckpoint),
        (format!("\n\n{checkpoint}"), RequestError::OldSize),
        (format!("old 01\n\n{checkpoint}"), RequestError::OldSize),
        (format!("old +1\n\n{checkpoint}"), RequestError::OldSize),
        (format!("old  1\n\n{checkpoint}"), RequestError::OldSize),
        (format!("old 1\r\n\n{checkpoint}"), RequestError::OldSize),
        (format!("old 1\nAAAA\n\n{checkpoint}"), RequestError::Proof),
        (
            format!("old 1{}\n\n{checkpoint}", "\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=".repeat(PROOF_LINES_MAX + 1)),
            RequestError::ProofTooLong,
        ),
    ] {
        assert_eq!(AddCheckpoint::parse(&body), Err(error), "{body}");
    }
    let longest = format!("old 1{}\n\n{checkpoint}", "\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=".repeat(PROOF_LINES_MAX));
    assert!(AddCheckpoint::parse(&longest).is_ok());
    assert!(matches!(AddCheckpoint::parse("old 1\n\nnonsense"), Err(RequestError::Checkpoint(_))));
}

#[test]
fn a_witness_follows_one_history_alone() {
    let (ours, mut forged) = (Table::of(700), Table::of(300));
    let mut rewritten = Appender::open(300, &mut forged.reader()).expect("tiles");
    (300..700).for_each(|index| rewritten.append(leaf(index + u64::from(index == 300))));
    forged.write(rewritten.take());
    let check = |request: &AddCheckpoint, seen: Option<&Checkpoint>| request.check(&known(), seen);
    let seen = of_size(&ours, 400);
    for (request, seen, answer) in [
        (request(&ours, 0, 400), None, Ok(())),
        (request(&ours, 0, 0), None, Ok(())),
        (request(&ours, 400, 400), Some(&seen), Ok(())),
        (request(&ours, 400, 700), Some(&seen), Ok(())),
        (request(&ours, 0, 700), Some(&seen), Err(Refused::OtherSize(400))),
        (request(&ours, 399, 700), Some(&seen), Err(Refused::OtherSize(400))),
        (request(&ours, 100, 700), None, Err(Refused::OtherSize(0))),
        (request(&ours, 500, 400), Some(&seen), Err(Refused::OldTooLarge)),
        // Rolled back: the log says that it has fewer entries than were cosigned.
        (request(&ours, 300, 300), Some(&seen), Err(Refused::OtherSize(400))),
        // Rewritten and signed again by the operator.
        (request(&forged, 400, 400), Some(&seen), Err(Refused::OtherRoot(400))),
        (request(&forged, 400, 700), Some(&seen), Err(Refused::Proof)),
        // The change is after what was cosigned, so there is nothing to object to.
        (request(&forged, 256, 700), Some(&of_size(&ours, 256)), Ok(())),
    ] {
        assert_eq!(check(&request, seen), answer, "{} to {}", request.old_size, request.checkpoint.unverified().size());
        assert_eq!(AddCheckpoint::parse(&request.to_string()).as_ref(), Ok(&request));
    }
    let mut proven = request(&ours, 0, 400);
    proven.proof.push([0; 32]);
    assert_eq!(check(&proven, None), Err(Refused::Proof), "an empty log needs no proof");
    assert_eq!(request(&ours, 0, 400).check(&[], None), Err(Refused::UnknownOrigin));
    let other = desist_proof::note::Signer::new(ORIGIN, desist_proof::note::Algorithm::Ed25519, &[77; 32]).expect("a name");
    assert_eq!(request(&ours, 0, 400).check(&[other.verifier().clone()], None), Err(Refused::NotSigned));
    assert_eq!(request(&ours, 0, 400).check(&[other.verifier().clone(), log_key().verifier().clone()], None), Ok(()));
}

#[test]
fn every_refusal_has_the_status_of_the_source() {
    let statuses = [
        (Refused::OldTooLarge, 400),
        (Refused::NotSigned, 403),
        (Refused::UnknownOrigin, 404),
        (Refused::OtherSize(1), 409),
        (Refused::OtherRoot(1), 409),
        (Refused::Proof, 422),
    ];
    for (refused, status) in statuses {
        assert_eq!(refused.status(), status);
    }
}

#[test]
fn no_changed_character_is_cosigned() {
    let table = Table::of(300);
    let (seen, good) = (of_size(&table, 200), request(&table, 200, 300).to_string());
    for changed in mutations(&good) {
        fuzz_add_checkpoint(changed.as_bytes());
        if let Ok(read) = AddCheckpoint::parse(&changed) {
            assert!(read.to_string() == good || read.check(&known(), Some(&seen)).is_err(), "{changed}");
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(old [0-9]{1,3}\n)?([A-Za-z0-9+/]{43}=\n){0,3}\n?(.|\n){0,200}") {
        fuzz_add_checkpoint(text.as_bytes());
    }

    #[test]
    fn growth_is_cosigned_from_any_size_to_any_larger_one(from in 0_u64..600, more in 0_u64..600) {
        let table = Table::of(from + more);
        let seen = of_size(&table, from);
        prop_assert_eq!(request(&table, from, from + more).check(&known(), Some(&seen).filter(|_| from > 0)), Ok(()));
    }
}
