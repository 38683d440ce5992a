//! The reader of PROXY headers: any bytes at any cut give the same verdict, and what is read is written back the same.

use adit::proto::api::ProxyProtocol;
use adit::proto::proxy_header::{parse, write};

/// See the top.
pub fn check(data: &[u8]) {
    let whole = parse(data);
    for cut in 0..data.len() {
        match parse(&data[..cut]) {
            Ok(None) => {}
            verdict => assert_eq!(verdict, whole),
        }
    }
    let Ok(Some(header)) = whole else { return };
    assert!(header.length <= data.len());
    if header.ends.is_none() {
        return;
    }
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        let written = write(version, header.ends);
        let again = parse(&written).expect("what we write is a header").expect("and whole");
        assert_eq!(again.length, written.len());
        assert_eq!(write(version, again.ends), written);
    }
}
