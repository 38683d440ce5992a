//! Whatever two ends do that keep the rules: each stream's bytes come as they went, and all is forgotten in the end.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    Open(usize),
    Accept(usize),
    Write(usize, prop::sample::Index, usize),
    Read(usize, prop::sample::Index, usize),
    Shut(usize, prop::sample::Index),
    Drop(usize, prop::sample::Index),
    /// So many frames of one end reach the other.
    Carry(usize, usize),
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let (end, any) = (0..2_usize, any::<prop::sample::Index>());
    let bytes = prop_oneof![1..20_usize, 1..5000_usize, 1..200_000_usize];
    prop_oneof![
        2 => end.clone().prop_map(Act::Open),
        2 => end.clone().prop_map(Act::Accept),
        6 => (end.clone(), any.clone(), bytes.clone()).prop_map(|(end, stream, bytes)| Act::Write(end, stream, bytes)),
        6 => (end.clone(), any.clone(), bytes).prop_map(|(end, stream, bytes)| Act::Read(end, stream, bytes)),
        1 => (end.clone(), any.clone()).prop_map(|(end, stream)| Act::Shut(end, stream)),
        1 => (end.clone(), any.clone()).prop_map(|(end, stream)| Act::Drop(end, stream)),
        8 => (end, 1..10_usize).prop_map(|(end, frames)| Act::Carry(end, frames)),
        1 => (1..6_u64).prop_map(Act::Pass),
    ]
}

/// One end of a stream, as its user sees it.
#[derive(Default)]
struct Held {
    written: usize,
    read: usize,
    shut: bool,
}

/// The byte at this place of a direction of a stream.
fn byte(id: u32, from: usize, at: usize) -> u8 {
    (at * 7 + id as usize * 3 + from * 101) as u8
}

struct World {
    pair: Pair,
    /// Bytes of one write.
    most: usize,
    held: [HashMap<u32, Held>; 2],
}

impl World {
    fn pick(&self, end: usize, index: &prop::sample::Index) -> Option<u32> {
        let mut ids: Vec<u32> = self.held[end].keys().copied().collect();
        ids.sort_unstable();
        (!ids.is_empty()).then(|| *index.get(&ids))
    }

    fn read(&mut self, end: usize, id: u32, most: usize) -> Taken {
        let taken = self.pair.ends[end].mux.read(id, most).unwrap();
        let held = self.held[end].get_mut(&id).unwrap();
        if let Taken::Bytes(bytes) = &taken {
            for got in bytes {
                assert_eq!(*got, byte(id, 1 - end, held.read));
                held.read += 1;
            }
        }
        taken
    }

    fn act(&mut self, act: &Act) {
        let now = self.pair.now;
        match act {
            Act::Open(end) => {
                if let Ok(id) = self.pair.ends[*end].mux.open(now) {
                    self.held[*end].insert(id, Held::default());
                }
            }
            Act::Accept(end) => {
                if let Some(id) = self.pair.ends[*end].mux.accept() {
                    self.held[*end].insert(id, Held::default());
                }
            }
            Act::Write(end, index, bytes) => {
                let Some(id) = self.pick(*end, index) else { return };
                let bytes = bytes.min(&self.most);
                let held = self.held[*end].get_mut(&id).unwrap();
                let mux = &mut self.pair.ends[*end].mux;
                if held.shut || mux.opening(id) != Opening::Open {
                    return;
                }
                let data: Vec<u8> =
                    (held.written..held.written + bytes).map(|at| byte(id, *end, at)).collect();
                held.written += if bytes % 2 == 0 {
                    let room = mux.room(id).unwrap().min(*bytes);
                    mux.write_whole(id, data[..room].into()).unwrap();
                    room
                } else {
                    mux.write(id, &data).unwrap()
                };
            }
            Act::Read(end, index, most) => {
                let Some(id) = self.pick(*end, index) else { return };
                if self.pair.ends[*end].mux.opening(id) == Opening::Open {
                    self.read(*end, id, *most);
                }
            }
            Act::Shut(end, index) => {
                let Some(id) = self.pick(*end, index) else { return };
                self.pair.ends[*end].mux.shutdown(id);
                self.held[*end].get_mut(&id).unwrap().shut = true;
            }
            Act::Drop(end, index) => {
                let Some(id) = self.pick(*end, index) else { return };
                self.pair.ends[*end].mux.release(now, id);
                self.held[*end].remove(&id);
            }
            Act::Carry(end, frames) => {
                for _ in 0..*frames {
                    self.pair.carry(*end);
                }
            }
            // Too little for a stream to be given up.
            Act::Pass(milliseconds) => self.pair.pass(Duration::from_millis(*milliseconds)),
        }
        assert_eq!(self.pair.ended(), [None; 2]);
    }

    /// Both ends accept, shut down and read what there is until each stream has ended, and let go of it.
    fn settle(mut self) {
        for _ in 0..10_000 {
            self.pair.talk();
            let accepted = self.pair.ends.iter().all(|end| end.mux.unaccepted.is_empty());
            if accepted && self.held.iter().all(HashMap::is_empty) {
                break;
            }
            for end in [SERVER, CLIENT] {
                while let Some(id) = self.pair.ends[end].mux.accept() {
                    self.held[end].insert(id, Held::default());
                }
                let ids: Vec<u32> = self.held[end].keys().copied().collect();
                for id in ids {
                    if self.pair.ends[end].mux.opening(id) != Opening::Open {
                        continue;
                    }
                    self.pair.ends[end].mux.shutdown(id);
                    self.held[end].get_mut(&id).unwrap().shut = true;
                    while let Taken::Bytes(_) = self.read(end, id, 100_000) {}
                    if self.read(end, id, 1) != Taken::End {
                        continue;
                    }
                    let read = self.held[end].remove(&id).unwrap().read;
                    if let Some(other) = self.held[1 - end].get(&id) {
                        assert_eq!(other.written, read, "some is missing of stream {id}");
                    }
                    self.pair.ends[end].mux.release(self.pair.now, id);
                }
            }
        }
        self.pair.talk();
        assert_eq!(self.pair.ended(), [None; 2]);
        for end in &self.pair.ends {
            assert_eq!((end.mux.streams(), end.mux.held()), (0, 0), "not all is forgotten");
            assert!(end.mux.timers.is_empty() && end.mux.unanswered == 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_two_ends_do_each_byte_comes_and_all_is_forgotten(
        acts in prop::collection::vec(act(), 1..150),
        window in prop_oneof![1..5_u32, 5..2000_u32, 2000..300_000_u32],
        held in prop_oneof![Just(usize::MAX), 1..200_000_usize],
        unanswered in 1..5_usize,
        piece in prop_oneof![Just(usize::MAX), 1..20_usize, 1..5000_usize],
    ) {
        let settings = Settings { window, held, unanswered, streams: 20, ..Settings::default() };
        let mut world = World {
            pair: Pair::new(settings),
            most: 20 * window as usize,
            held: Default::default(),
        };
        world.pair.piece = piece.max(window as usize / 1000 + 1);
        for act in &acts {
            world.act(act);
        }
        world.settle();
    }
}
