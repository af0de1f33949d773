//! The jobs of one errand as the one name that a lane keeps of them.

use desist_core::lane::Level;
use desist_core::limits::JOB_HANDLE_BYTES_MAX;

/// Jobs that one errand began: of each its op and the destination's name for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    /// Whether their end proves that all was done: not if somebody was told by another call as well, which was only accepted.
    pub are_all: bool,
    /// The jobs.
    pub list: Vec<(usize, String)>,
}

impl Jobs {
    /// As text; `None`: it is longer than a lane keeps, so nobody can ask after them.
    pub fn encode(&self) -> Option<String> {
        // A name of a job has no spaces.
        let jobs: Vec<_> = self.list.iter().map(|(op, job)| format!("{op}:{job}")).collect();
        let text = format!("{}{}", if self.are_all { '+' } else { '-' }, jobs.join(" "));
        (text.len() <= JOB_HANDLE_BYTES_MAX).then_some(text)
    }

    /// Back from text.
    pub fn decode(text: &str) -> Option<Self> {
        let are_all = text.starts_with('+');
        let rest = text.strip_prefix(['+', '-'])?;
        let list = rest.split(' ').map(|job| {
            let (op, job) = job.split_once(':')?;
            Some((op.parse().ok()?, job.to_owned()))
        });
        Some(Self { are_all, list: list.collect::<Option<_>>()? })
    }

    /// What the end of all of them proves.
    pub const fn proves(&self) -> Level {
        if self.are_all { Level::Applied } else { Level::Accepted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_come_back_from_their_text_and_too_many_have_none() {
        let jobs = Jobs { are_all: true, list: vec![(0, "req/1?:x".to_owned()), (11, "17".to_owned())] };
        assert_eq!(jobs.encode().as_deref(), Some("+0:req/1?:x 11:17"));
        assert_eq!(Jobs::decode("+0:req/1?:x 11:17"), Some(jobs.clone()));
        let few = Jobs { are_all: false, ..jobs };
        assert_eq!((Jobs::decode(&few.encode().unwrap()), few.proves()), (Some(few.clone()), Level::Accepted));
        for wrong in ["", "0:a", "+", "+a:b", "+0a"] {
            assert_eq!(Jobs::decode(wrong), None, "{wrong}");
        }
        let job = |bytes: usize| Jobs { are_all: true, list: vec![(0, "x".repeat(bytes))] }.encode();
        assert!(job(JOB_HANDLE_BYTES_MAX - 3).is_some() && job(JOB_HANDLE_BYTES_MAX - 2).is_none());
    }
}
