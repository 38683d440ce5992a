//! Loaded by `LD_PRELOAD` into a program that `adit bridge` wraps: a `bind` to the port `REBIND_OLD_PORT` becomes one to
//! `REBIND_NEW_PORT` of the loopback address, so that the bridge itself can listen where the program would have.
//!
//! Everything else goes to the `bind` that would have been called, unchanged. Nothing here allocates, locks or panics: it runs inside
//! programs that may have forked, in any thread.

use std::ffi::{CStr, c_int, c_void};
use std::mem::{size_of, transmute};

use libc::{AF_INET, AF_INET6, in_addr, in6_addr, sockaddr, sockaddr_in, sockaddr_in6, socklen_t};

type Bind = unsafe extern "C" fn(c_int, *const sockaddr, socklen_t) -> c_int;

/// `bind(2)`, as the program calls it.
///
/// # Safety
/// As that of the C library: `address` points to `length` bytes that can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bind(socket: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: the name ends in a zero byte.
    let next: *mut c_void = unsafe { libc::dlsym(libc::RTLD_NEXT, c"bind".as_ptr()) };
    if next.is_null() {
        // SAFETY: the C library's own place of this thread, valid for as long as the thread runs.
        unsafe { *libc::__errno_location() = libc::ENOSYS };
        return -1;
    }
    // SAFETY: what the C library and every other preloaded one export under this name has this type.
    let next: Bind = unsafe { transmute(next) };
    let (Some(old), Some(new)) = (port(c"REBIND_OLD_PORT"), port(c"REBIND_NEW_PORT")) else {
        // SAFETY: the arguments are the caller's, who vouches for them.
        return unsafe { next(socket, address, length) };
    };
    // SAFETY: the caller vouches for `length` bytes at `address`.
    match unsafe { family(address, length) } {
        // SAFETY: `family` has seen that so many bytes are there; they need not be aligned.
        Some(AF_INET) => unsafe {
            let mut moved = address.cast::<sockaddr_in>().read_unaligned();
            if moved.sin_port == old.to_be() {
                moved.sin_port = new.to_be();
                moved.sin_addr = in_addr { s_addr: 0x7f00_0001_u32.to_be() };
                share(socket);
                return next(socket, (&raw const moved).cast(), size_of::<sockaddr_in>() as socklen_t);
            }
        },
        // SAFETY: the same.
        Some(AF_INET6) => unsafe {
            let mut moved = address.cast::<sockaddr_in6>().read_unaligned();
            if moved.sin6_port == old.to_be() {
                moved.sin6_port = new.to_be();
                moved.sin6_addr = in6_addr { s6_addr: loopback(moved.sin6_addr.s6_addr) };
                share(socket);
                return next(socket, (&raw const moved).cast(), size_of::<sockaddr_in6>() as socklen_t);
            }
        },
        _ => {}
    }
    // SAFETY: the arguments are the caller's, who vouches for them.
    unsafe { next(socket, address, length) }
}

/// Lets the socket have the port beside the bridge, which keeps others from it. If it cannot, `bind` says so.
fn share(socket: c_int) {
    let yes: c_int = 1;
    // SAFETY: the value is there, and as long as is said.
    unsafe {
        let length = size_of::<c_int>() as socklen_t;
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, (&raw const yes).cast(), length);
    }
}

/// The family of an address that has all the bytes of its family.
///
/// # Safety
/// `address` is null, or points to `length` bytes.
unsafe fn family(address: *const sockaddr, length: socklen_t) -> Option<c_int> {
    let length = length as usize;
    if address.is_null() || length < size_of::<libc::sa_family_t>() {
        return None;
    }
    // SAFETY: the field lies in the bytes that are there; it need not be aligned.
    let family = c_int::from(unsafe { (&raw const (*address).sa_family).read_unaligned() });
    let whole = match family {
        AF_INET => size_of::<sockaddr_in>(),
        AF_INET6 => size_of::<sockaddr_in6>(),
        _ => return None,
    };
    (length >= whole).then_some(family)
}

/// `::1`, or `::ffff:127.0.0.1` in the place of an IPv4 address that a socket of IPv6 is given.
fn loopback(address: [u8; 16]) -> [u8; 16] {
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    match address.starts_with(&mapped) {
        true => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1],
        false => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    }
}

/// The port that a variable of the environment names. The standard library would take a lock here, which a fork may have
/// left taken.
fn port(name: &CStr) -> Option<u16> {
    // SAFETY: the name ends in a zero byte, and so does what the C library gives back.
    let text = unsafe {
        let text = libc::getenv(name.as_ptr());
        if text.is_null() {
            return None;
        }
        CStr::from_ptr(text)
    };
    text.to_str().ok()?.parse().ok()
}
