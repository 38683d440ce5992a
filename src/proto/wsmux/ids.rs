//! Maps by the ids of streams: looked into several times for each frame, with ids that the other end may choose.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Something for each stream.
pub type ByStream<T> = HashMap<u32, T, Keyed>;

/// Folds the product of an id with a random number, twice, as there are bad numbers for ids at an equal distance: far quicker
/// than the hash of the library, and nobody outside can tell which ids collide.
#[derive(Debug, Clone, Copy)]
pub struct Keyed {
    added: u64,
    times: [u64; 2],
}

impl Default for Keyed {
    fn default() -> Self {
        let random = RandomState::new();
        Self { added: random.hash_one(0), times: [1, 2].map(|number| random.hash_one(number) | 1) }
    }
}

impl BuildHasher for Keyed {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded { key: *self, hash: 0 }
    }
}

/// See [`Keyed`].
#[derive(Debug)]
pub struct Folded {
    key: Keyed,
    hash: u64,
}

impl Hasher for Folded {
    fn write_u32(&mut self, id: u32) {
        let [first, second] = self.key.times;
        self.hash = fold(fold(u64::from(id) ^ self.hash ^ self.key.added, first), second);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

fn fold(number: u64, times: u64) -> u64 {
    let wide = u128::from(number) * u128::from(times);
    wide as u64 ^ (wide >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables take their place from the lowest bits of a hash, and a tag from the highest.
    #[test]
    fn ids_at_any_distance_are_spread_over_places_and_tags() {
        for step in [1, 2, 3, 256, 65_536, 1 << 22] {
            for _ in 0..20 {
                let keyed = Keyed::default();
                let hashes = (0..1024_u32).map(|at| keyed.hash_one(at.wrapping_mul(step)));
                let (mut places, mut tags) = ([0; 1024], [0; 128]);
                for hash in hashes {
                    places[hash as usize % 1024] += 1;
                    tags[(hash >> 57) as usize] += 1;
                }
                let (place, tag) = (places.iter().max().unwrap(), tags.iter().max().unwrap());
                assert!(*place <= 16 && *tag <= 64, "{step} {place} {tag}");
            }
        }
    }
}
