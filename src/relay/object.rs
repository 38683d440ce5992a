//! Bodies of calls: each is one JSON object.

use serde::de::DeserializeOwned;

/// Reads an object; the error is a sentence for whoever sent it.
pub fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    // serde would take an array for the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("expected a JSON object".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}
