//! The last hour of a client, a tick for each half minute.

use std::time::Duration;

use crate::proto::limits::pulse::SLOTS;

/// A tick as one byte: nothing was asked, or the round trip on a logarithmic scale, or no answer.
type Tick = u8;
const NOTHING: Tick = 0;
const MISSED: Tick = Tick::MAX;
/// The shortest round trip that is told from a shorter one, in microseconds.
const LEAST: f64 = 100.0;
/// Ticks for each doubling: steps of 9 %.
const STEPS: f64 = 8.0;

/// What the pings of one slot came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The longest round trip.
    Pong(Duration),
    /// One was not answered.
    Missed,
}

/// The last [`SLOTS`] slots. Taken only when the first beat comes.
#[derive(Debug, Default)]
pub(super) struct Strip {
    ticks: Option<Box<[Tick; SLOTS]>>,
    /// Number of the newest slot.
    newest: u32,
}

impl Strip {
    /// Adds to slot number `slot`; of several beats in one the worst stays.
    pub(super) fn add(&mut self, slot: u32, beat: Beat) {
        let first = self.ticks.is_none();
        let ticks = self.ticks.get_or_insert_with(|| Box::new([NOTHING; SLOTS]));
        if first {
            self.newest = slot;
        }
        // Slots in which nothing was asked; more than all there are is all of them.
        for passed in (self.newest + 1..=slot).rev().take(SLOTS) {
            ticks[passed as usize % SLOTS] = NOTHING;
        }
        if slot >= self.newest {
            self.newest = slot;
        } else if self.newest - slot >= SLOTS as u32 {
            return;
        }
        let tick = &mut ticks[slot as usize % SLOTS];
        *tick = (*tick).max(code(beat));
    }

    /// The hour up to slot number `now`, oldest first.
    pub(super) fn show(&self, now: u32) -> Vec<Option<Beat>> {
        let Some(ticks) = &self.ticks else { return vec![None; SLOTS] };
        let slots = (0..SLOTS as u32).rev().map(|back| now.checked_sub(back));
        let known = |slot: &u32| *slot <= self.newest && self.newest - slot < SLOTS as u32;
        slots.map(|slot| slot.filter(known).and_then(|slot| beat(ticks[slot as usize % SLOTS]))).collect()
    }
}

fn code(beat: Beat) -> Tick {
    match beat {
        Beat::Missed => MISSED,
        Beat::Pong(after) => {
            let doublings = (after.as_micros() as f64 / LEAST).max(1.0).log2();
            (1.0 + (doublings * STEPS).round()).min(f64::from(MISSED - 1)) as Tick
        }
    }
}

fn beat(tick: Tick) -> Option<Beat> {
    match tick {
        NOTHING => None,
        MISSED => Some(Beat::Missed),
        code => {
            let micros = LEAST * (f64::from(code - 1) / STEPS).exp2();
            Some(Beat::Pong(Duration::from_micros(micros as u64)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Beat {
        Beat::Pong(Duration::from_millis(ms))
    }

    /// What is there, by how many slots ago it was.
    fn seen(strip: &Strip, now: u32) -> Vec<(usize, bool)> {
        let shown = strip.show(now).into_iter().rev().enumerate();
        shown.filter_map(|(back, beat)| Some((back, beat? == Beat::Missed))).collect()
    }

    #[test]
    fn round_trips_come_back_within_a_tenth() {
        for micros in [100, 450, 8_000, 123_456, 5_000_000, 59_000_000] {
            let Some(Beat::Pong(shown)) = beat(code(Beat::Pong(Duration::from_micros(micros)))) else {
                panic!()
            };
            let ratio = shown.as_micros() as f64 / micros as f64;
            assert!((0.9..1.1).contains(&ratio), "{micros}: {shown:?}");
        }
    }

    #[test]
    fn the_worst_of_a_slot_stays() {
        let mut strip = Strip::default();
        strip.add(7, ms(20));
        strip.add(7, Beat::Missed);
        strip.add(7, ms(10));
        assert_eq!(seen(&strip, 7), [(0, true)]);
    }

    #[test]
    fn what_is_older_than_an_hour_is_gone_and_gaps_are_empty() {
        let mut strip = Strip::default();
        strip.add(10, ms(1));
        strip.add(12, Beat::Missed);
        assert_eq!(seen(&strip, 13), [(1, true), (3, false)]);
        let hour = SLOTS as u32;
        assert_eq!(seen(&strip, 10 + hour), [(hour as usize - 2, true)]);
        strip.add(12 + 3 * hour, ms(1));
        assert_eq!(seen(&strip, 12 + 3 * hour), [(0, false)]);
        strip.add(12, ms(1));
        assert_eq!(seen(&strip, 12 + 3 * hour), [(0, false)]);
        assert!(seen(&strip, 12 + 5 * hour).is_empty());
    }
}
