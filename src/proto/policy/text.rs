//! The short forms of rules, as flags have them: `100/s,burst=200` and `github:SECRET`; and sizes.

use super::{RateLimit, Verify};

/// Schemes of signatures that have a name.
pub(super) const SCHEMES: &str = "github, slack, stripe, standard and hmac";

impl RateLimit {
    /// Reads `RATE[,burst=NUMBER][,per=address|tunnel]`. What the parts mean is not looked at.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',').map(str::trim);
        let rate = parts.next().unwrap_or_default().to_owned();
        let mut read = Self { rate, ..Self::default() };
        for part in parts {
            match part.split_once('=') {
                Some(("burst", number)) => {
                    let number = number.parse().map_err(|_| format!("burst={number}: write a number"))?;
                    read.burst = Some(number);
                }
                Some(("per", per)) => read.per = Some(per.to_owned()),
                _ => return Err(format!("{part:?}: write RATE, RATE,burst=NUMBER or RATE,per=tunnel")),
            }
        }
        Ok(read)
    }
}

impl Verify {
    /// How senders of a scheme sign; `None`: there is no such scheme.
    pub(super) fn of_scheme(scheme: &str) -> Option<Self> {
        let plain = Self {
            header: "X-Signature".into(),
            algorithm: "sha256".into(),
            encoding: "hex".into(),
            payload: "{body}".into(),
            secret_encoding: "text".into(),
            ..Self::default()
        };
        Some(match scheme {
            "hmac" => plain,
            "github" => Self { header: "X-Hub-Signature-256".into(), prefix: "sha256=".into(), ..plain },
            "slack" => Self {
                header: "X-Slack-Signature".into(),
                prefix: "v0=".into(),
                payload: "v0:{timestamp}:{body}".into(),
                timestamp_header: Some("X-Slack-Request-Timestamp".into()),
                tolerance: Some("5m".into()),
                ..plain
            },
            "stripe" => Self {
                header: "Stripe-Signature".into(),
                prefix: "v1=".into(),
                payload: "{timestamp}.{body}".into(),
                timestamp_prefix: Some("t=".into()),
                tolerance: Some("5m".into()),
                ..plain
            },
            // https://www.standardwebhooks.com: the version and its signature are two items of a list for us.
            "standard" => Self {
                header: "Webhook-Signature".into(),
                encoding: "base64".into(),
                payload: "{header:webhook-id}.{timestamp}.{body}".into(),
                timestamp_header: Some("Webhook-Timestamp".into()),
                tolerance: Some("5m".into()),
                secret_encoding: "base64".into(),
                ..plain
            },
            _ => return None,
        })
    }

    /// Reads `SCHEME[,KEY=VALUE…]:SECRET`. No error shows the secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let usage = "write SCHEME:SECRET, such as github:SECRET, or hmac,header=X-Signature:SECRET";
        let Some((how, secret)) = text.split_once(':') else {
            // It may be a secret as a whole.
            return Err(usage.to_owned());
        };
        let mut parts = how.split(',').map(str::trim);
        let scheme = parts.next().unwrap_or_default();
        let mut read = Self::of_scheme(scheme)
            .ok_or_else(|| format!("{scheme:?} is no scheme of signatures; there are {SCHEMES}"))?;
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| usage.to_owned())?;
            let place = read.place(key).ok_or_else(|| {
                format!(
                    "{key}: no such key; there are {}. A payload with colons goes into a file",
                    Self::KEYS
                )
            })?;
            *place = value.to_owned();
        }
        read.secret = vec![secret.to_owned()];
        Ok(read)
    }

    /// The keys beside the secret.
    pub(super) const KEYS: &str = "header, algorithm, encoding, prefix, payload, timestamp_header, \
        timestamp_prefix, tolerance and secret_encoding";

    /// Where the value of a key belongs.
    pub(super) fn place(&mut self, key: &str) -> Option<&mut String> {
        Some(match key {
            "header" => &mut self.header,
            "algorithm" => &mut self.algorithm,
            "encoding" => &mut self.encoding,
            "prefix" => &mut self.prefix,
            "payload" => &mut self.payload,
            "timestamp_header" => self.timestamp_header.get_or_insert_default(),
            "timestamp_prefix" => self.timestamp_prefix.get_or_insert_default(),
            "tolerance" => self.tolerance.get_or_insert_default(),
            "secret_encoding" => &mut self.secret_encoding,
            _ => return None,
        })
    }
}

/// Reads a number of bytes with or without a unit: `10MB`, `512KiB`, `1000000`.
pub fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_units_that_people_write() {
        for (text, bytes) in
            [("0", 0), ("10MB", 10_000_000), ("10 mib", 10 << 20), ("1k", 1000), ("1GiB", 1 << 30), ("7b", 7)]
        {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for bad in ["", "MB", "-1", "1.5MB", "1 M B", "10TB", "99999999999GB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_secret_may_have_anything_and_no_error_shows_it() {
        let verify = Verify::parse("hmac,header=X-Sig,algorithm=sha1:a:b,c=d").unwrap();
        assert_eq!((&*verify.secret[0], &*verify.header, &*verify.algorithm), ("a:b,c=d", "X-Sig", "sha1"));
        for bad in ["s3cret", "git:s3cret", "hmac,x=1:s3cret", "hmac,x:s3cret"] {
            let error = Verify::parse(bad).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
        for scheme in ["github", "slack", "stripe", "standard", "hmac"] {
            assert!(SCHEMES.contains(scheme) && Verify::parse(&format!("{scheme}:x")).is_ok());
        }
    }

    #[test]
    fn a_rate_has_options_behind_it() {
        let rate = RateLimit::parse("10/m, burst=3 ,per=tunnel").unwrap();
        assert_eq!((rate.burst, rate.per.as_deref()), (Some(3), Some("tunnel")));
        for bad in ["10/m,burst=x", "10/m,x", "10/m,x=y"] {
            assert!(RateLimit::parse(bad).unwrap_err().contains("write"), "{bad}");
        }
    }
}
