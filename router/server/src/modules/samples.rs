//! The last messages that filters judged, a few of each place, for the smoke run of a version that is to stand there. It calls no
//! module.
//!
//! Once a place has its 32, a batch costs it one attempt at a lock and a copy of one message, some 100 ns beside the 128 messages that
//! a batch has under load.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use chaski_modules::VersionId;

use super::active::Outcome;
use super::set::Place;
use super::subject::Subject;

/// Messages of one place that are kept (DESIGN section 6).
pub(super) const MESSAGES: usize = 32;

/// Bytes that all filters of one route or binding keep together.
const PLACE_BYTES: usize = 1 << 20;

/// Bytes that all places keep together: beyond it each has no more than it had.
const ALL_BYTES: usize = 64 << 20;

/// A message with more than this part of a filter's room is not kept: it would drive out most others.
const LARGEST_PART: usize = 4;

/// A block of so many bytes is kept as it is. A smaller one is copied, since it may be a small part of a network buffer of this size.
const SHARED_FROM: usize = 64 << 10;

/// Where a filter stands: what the first one of a route or binding sees doesn't depend on which module that is, what those behind it
/// see does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Spot {
    /// `None`: at consumers and subscriptions.
    place: Option<Place>,
    /// The module; `None`: the first of its place, whichever it is.
    module: Option<Arc<str>>,
}

/// All that is kept. What no filter stands at any more goes with the rules that had it.
#[derive(Default)]
pub(crate) struct Samples {
    spots: Mutex<HashMap<Spot, Weak<Sample>>>,
    /// Bytes of all of them.
    bytes: Arc<AtomicUsize>,
}

impl Samples {
    /// The sample of the filter with this index among so many of a route or binding.
    pub(super) fn at(&self, place: &Place, index: usize, of: usize, module: &Arc<str>) -> Arc<Sample> {
        self.sample(spot(place, index, module), PLACE_BYTES / of.max(1))
    }

    /// The sample of a filter that consumers and subscriptions name.
    pub(super) fn of_streams(&self, module: &Arc<str>) -> Arc<Sample> {
        self.sample(Spot { place: None, module: Some(Arc::clone(module)) }, PLACE_BYTES)
    }

    /// What was judged last at these places of a module, each with its index there, and by consumers and subscriptions that name it:
    /// of each place the oldest first, `most` in all, the same number of each.
    pub(super) fn seen(&self, module: &Arc<str>, places: &[(Place, usize)], most: usize) -> Vec<Seen> {
        let spots = places.iter().map(|(place, index)| spot(place, *index, module));
        let streams = Spot { place: None, module: Some(Arc::clone(module)) };
        let samples: Vec<Arc<Sample>> = {
            let all = self.all();
            spots.chain([streams]).filter_map(|spot| all.get(&spot)?.upgrade()).collect()
        };
        let kept = samples.iter().map(|sample| sample.newest(MESSAGES)).filter(|seen| !seen.is_empty());
        let kept: Vec<Vec<Seen>> = kept.take(most).collect();
        let each = most / kept.len().max(1);
        kept.into_iter()
            .flat_map(|seen| seen.into_iter().rev().take(each).rev().collect::<Vec<_>>())
            .collect()
    }

    fn sample(&self, spot: Spot, room: usize) -> Arc<Sample> {
        let mut all = self.all();
        if let Some(sample) = all.get(&spot).and_then(Weak::upgrade) {
            sample.kept().room = room;
            return sample;
        }
        all.retain(|_, sample| sample.strong_count() > 0);
        let kept = Kept { seen: VecDeque::new(), bytes: 0, room };
        let sample = Arc::new(Sample { kept: Mutex::new(kept), all_bytes: Arc::clone(&self.bytes) });
        all.insert(spot, Arc::downgrade(&sample));
        sample
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Spot, Weak<Sample>>> {
        self.spots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spot(place: &Place, index: usize, module: &Arc<str>) -> Spot {
    Spot { place: Some(place.clone()), module: (index > 0).then(|| Arc::clone(module)) }
}

/// A message that was judged.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) subject: Subject,
    /// The version that failed on it, if the one that judged it did.
    pub(super) failed_by: Option<VersionId>,
}

/// The last messages of one place.
pub(crate) struct Sample {
    kept: Mutex<Kept>,
    all_bytes: Arc<AtomicUsize>,
}

struct Kept {
    /// The oldest first.
    seen: VecDeque<Seen>,
    bytes: usize,
    /// Bytes that it may have.
    room: usize,
}

impl Sample {
    /// Keeps what this version judged last of a batch: as many as are missing, else one.
    pub(super) fn keep<'a>(
        &self,
        version: VersionId,
        judged: impl DoubleEndedIterator<Item = (&'a Subject, &'a Outcome)>,
    ) {
        // Whoever holds it keeps messages of the same place, which are as good.
        let Ok(mut kept) = self.kept.try_lock() else { return };
        let before = kept.bytes;
        let wanted = MESSAGES.saturating_sub(kept.seen.len()).max(1);
        let largest = kept.room / LARGEST_PART;
        let fits = |(subject, outcome): &(&Subject, &Outcome)| {
            **outcome != Outcome::Busy && subject.bytes() <= largest
        };
        // Few batches are larger than what is wanted of them, and the last of each are the newest.
        let newest: Vec<_> = judged.rev().filter(fits).take(wanted).collect();
        for (subject, outcome) in newest.into_iter().rev() {
            let subject =
                if subject.message.body.len() < SHARED_FROM { subject.copied() } else { subject.clone() };
            kept.bytes += subject.bytes();
            let failed_by = matches!(outcome, Outcome::Failed { .. }).then_some(version);
            kept.seen.push_back(Seen { subject, failed_by });
        }
        let full = self.all_bytes.load(Ordering::Relaxed) >= ALL_BYTES;
        let room = if full { kept.room.min(before) } else { kept.room };
        while kept.seen.len() > MESSAGES || kept.bytes > room {
            let Some(oldest) = kept.seen.pop_front() else { break };
            kept.bytes -= oldest.subject.bytes();
        }
        self.all_bytes.fetch_add(kept.bytes.wrapping_sub(before), Ordering::Relaxed);
    }

    fn newest(&self, most: usize) -> Vec<Seen> {
        let kept = self.kept();
        kept.seen.iter().skip(kept.seen.len().saturating_sub(most)).cloned().collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Its bytes are those of its messages between any two calls.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        let bytes = self.kept().bytes;
        self.all_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use chaski_broker::Millis;
    use chaski_modules::{Digest, Message as _, Verdict};
    use chaski_protocol::Head;

    use super::*;
    use crate::message::compose;

    const PASS: Outcome = Outcome::Verdict(Verdict::Pass);
    const VERSION: VersionId = VersionId { binary: Digest([1; 32]), params: Digest([2; 32]) };

    fn subject(id: usize, payload: usize) -> Subject {
        let id = id.to_string();
        Subject::of(compose(&Head { topic: "t", id: &id, ..Head::default() }, &vec![0; payload]), Millis(0))
    }

    /// A batch of messages with these numbers, of which each failed or none did.
    fn keep(sample: &Sample, ids: std::ops::Range<usize>, payload: usize, outcome: &Outcome) {
        let subjects: Vec<_> = ids.map(|id| subject(id, payload)).collect();
        sample.keep(VERSION, subjects.iter().map(|subject| (subject, outcome)));
    }

    fn ids(seen: &[Seen]) -> Vec<usize> {
        seen.iter().map(|seen| seen.subject.id().parse().unwrap()).collect()
    }

    fn route(name: &str) -> Place {
        Place::Route(name.into())
    }

    #[test]
    fn a_place_keeps_its_last_messages_all_of_a_batch_while_it_has_few_then_the_last_of_each() {
        let samples = Samples::default();
        let sample = samples.at(&route("r"), 0, 1, &"m".into());
        keep(&sample, 0..30, 10, &PASS);
        keep(&sample, 30..130, 10, &PASS);
        assert_eq!(ids(&sample.newest(MESSAGES)), (0..30).chain([128, 129]).collect::<Vec<_>>());
        keep(&sample, 130..140, 10, &PASS);
        assert_eq!(ids(&sample.newest(MESSAGES)), (1..30).chain([128, 129, 139]).collect::<Vec<_>>());
    }

    #[test]
    fn what_it_keeps_is_bounded_in_bytes_for_a_place_and_for_all() {
        let samples = Samples::default();
        let sample = samples.at(&route("r"), 0, 2, &"m".into());
        keep(&sample, 0..20, 100_000, &PASS);
        assert_eq!(ids(&sample.newest(MESSAGES)), (15..20).collect::<Vec<_>>(), "two filters have half each");
        keep(&sample, 20..21, PLACE_BYTES / 2 / LARGEST_PART, &PASS);
        assert_eq!(ids(&sample.newest(1)), [19], "a large one would drive out the others");
        assert_eq!(samples.bytes.load(Ordering::Relaxed), sample.kept().bytes);
        samples.bytes.fetch_add(ALL_BYTES, Ordering::Relaxed);
        keep(&sample, 21..22, 90_000, &PASS);
        assert_eq!(ids(&sample.newest(MESSAGES)), [16, 17, 18, 19, 21], "in the place of another");
        let other = samples.at(&route("other"), 0, 1, &"m".into());
        keep(&other, 0..1, 1, &PASS);
        assert!(ids(&other.newest(MESSAGES)).is_empty());
        drop((sample, other));
        assert_eq!(samples.bytes.load(Ordering::Relaxed), ALL_BYTES);
    }

    #[test]
    fn a_module_that_takes_the_first_place_meets_what_its_predecessor_saw_there() {
        let samples = Samples::default();
        let (old, new) = ("old".into(), "new".into());
        let [first, second] = [0, 1].map(|index| samples.at(&route("r"), index, 2, &old));
        keep(&first, 0..1, 1, &PASS);
        keep(&second, 1..2, 1, &PASS);
        assert_eq!(ids(&samples.seen(&new, &[(route("r"), 0)], 256)), [0]);
        assert!(
            ids(&samples.seen(&new, &[(route("r"), 1)], 256)).is_empty(),
            "another one left other messages"
        );
        assert_eq!(ids(&samples.seen(&old, &[(route("r"), 1), (route("r"), 0)], 256)), [1, 0]);
        assert!(Arc::ptr_eq(&first, &samples.at(&route("r"), 0, 1, &new)), "and goes on keeping them");
    }

    #[test]
    fn many_places_have_their_newest_messages_tried_the_same_number_of_each() {
        let samples = Samples::default();
        let places: Vec<_> = (0..4).map(|number| (route(&number.to_string()), 0)).collect();
        let module = "m".into();
        let kept: Vec<_> =
            places.iter().map(|(place, index)| samples.at(place, *index, 1, &module)).collect();
        kept.iter()
            .enumerate()
            .for_each(|(number, sample)| keep(sample, number * 10..number * 10 + 9, 1, &PASS));
        assert_eq!(ids(&samples.seen(&module, &places, 8)), [7, 8, 17, 18, 27, 28, 37, 38]);
        drop(kept);
        assert!(ids(&samples.seen(&module, &places, 8)).is_empty(), "what nobody stands at is gone");
    }

    #[test]
    fn what_a_version_failed_on_is_marked_with_it_and_what_nobody_judged_is_not_kept() {
        let samples = Samples::default();
        let sample = samples.of_streams(&"m".into());
        keep(&sample, 0..1, 1, &Outcome::Failed { cause: "trap", detail: "".into() });
        keep(&sample, 1..2, 1, &Outcome::Busy);
        let seen = samples.seen(&"m".into(), &[], 256);
        assert_eq!((ids(&seen), seen[0].failed_by), (vec![0], Some(VERSION)));
    }
}
