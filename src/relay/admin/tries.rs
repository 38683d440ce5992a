//! How often passwords may be tried: by one address, and by all together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::proto::limits::admin::{TRIES, TRIES_OF_ALL, TRY_EVERY, TRY_OF_ALL_EVERY};
use crate::proto::pace::Pace;
use crate::relay::crowd::network;
use crate::sync::lock;

/// The pace of all together, and that of each address.
pub struct Tries(Mutex<Paces>);

struct Paces {
    all: Pace,
    /// Only of those who were let try: the pace of all bounds how many there are that are not rested.
    addresses: HashMap<IpAddr, Pace>,
}

impl Default for Tries {
    fn default() -> Self {
        let (all, addresses) = (pace(TRIES_OF_ALL, TRY_OF_ALL_EVERY), HashMap::new());
        Self(Mutex::new(Paces { all, addresses }))
    }
}

impl Tries {
    /// One more try of that address; an error says after what time there is one.
    pub fn take(&self, address: IpAddr) -> Result<(), Duration> {
        let (now, address) = (Instant::now().into_std(), network(address));
        let Paces { all, addresses } = &mut *lock(&self.0);
        let mut own = addresses.get(&address).copied().unwrap_or_else(|| pace(TRIES, TRY_EVERY));
        own.try_take(now, 1)?;
        all.try_take(now, 1)?;
        addresses.retain(|_, pace| !pace.is_rested(now));
        addresses.insert(address, own);
        Ok(())
    }
}

/// `most` at once, and one `every` so much time after that.
fn pace(most: u32, every: Duration) -> Pace {
    Pace::new(NonZeroU64::MIN, every, every * most)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_has_some_tries_at_once_and_then_one_from_time_to_time() {
        let tries = Tries::default();
        let (one, other): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        for _ in 0..TRIES {
            assert_eq!(tries.take(one), Ok(()));
        }
        assert_eq!(tries.take(one), Err(TRY_EVERY));
        assert_eq!(tries.take(other), Ok(()));
        advance(TRY_EVERY / 2).await;
        assert_eq!(tries.take(one), Err(TRY_EVERY / 2));
        advance(TRY_EVERY / 2).await;
        assert_eq!((tries.take(one), tries.take(one)), (Ok(()), Err(TRY_EVERY)));
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_together_have_no_more_than_all_may_and_leave_nothing_behind() {
        let tries = Tries::default();
        let mut good = 0;
        for host in 0..10_000_u32 {
            good += u32::from(tries.take(IpAddr::V4(host.into())).is_ok());
        }
        assert_eq!((good, lock(&tries.0).addresses.len()), (TRIES_OF_ALL, TRIES_OF_ALL as usize));
        advance(TRY_EVERY * TRIES).await;
        tries.take([192, 0, 2, 1].into()).unwrap();
        assert_eq!(lock(&tries.0).addresses.len(), 1);
    }
}
