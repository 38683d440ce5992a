//! Which exchanges have a span, as `OTEL_TRACES_SAMPLER` says it (OpenTelemetry SDK environment variables).

use super::SpansError;
use crate::proto::trace::{TraceId, TraceParent};

/// The share of traces that is taken, and who decides first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sampler {
    /// A viewer that says whether its trace is recorded decides for us, too.
    by_parent: bool,
    /// Of the other traces, so many are taken: 0 to 1.
    share: f64,
}

impl Sampler {
    /// Reads the variables; `parentbased_always_on` unless something else is said.
    pub(super) fn read(name: Option<&str>, argument: Option<&str>) -> Result<Self, SpansError> {
        let name = name.filter(|name| !name.is_empty()).unwrap_or("parentbased_always_on");
        let (by_parent, kind) = match name.strip_prefix("parentbased_") {
            Some(kind) => (true, kind),
            None => (false, name),
        };
        let share = match (kind, argument.filter(|argument| !argument.is_empty())) {
            ("always_on", _) | ("traceidratio", None) => 1.0,
            ("always_off", _) => 0.0,
            ("traceidratio", Some(text)) => match text.parse() {
                Ok(share) if (0.0..=1.0).contains(&share) => share,
                _ => {
                    return Err(SpansError::Unusable(format!(
                        "environment OTEL_TRACES_SAMPLER_ARG: {text:?}: expected a share from 0 to 1, such as 0.1"
                    )));
                }
            },
            _ => {
                return Err(SpansError::Unusable(format!(
                    "environment OTEL_TRACES_SAMPLER: {name:?}: expected always_on, always_off or traceidratio, or one of \
                     these behind parentbased_"
                )));
            }
        };
        Ok(Self { by_parent, share })
    }

    /// Whether an exchange of this trace has a span.
    pub(super) fn takes(self, parent: Option<TraceParent>, trace: TraceId) -> bool {
        match parent {
            Some(parent) if self.by_parent => parent.sampled,
            // By the id, so that all who are asked for the same share take the same traces.
            _ => {
                let [.., a, b, c, d, e, f, g, h] = trace.0;
                let place = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
                (place as f64) < self.share * (1_u64 << 63) as f64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, argument: &str) -> Result<Sampler, SpansError> {
        Sampler::read(Some(name), Some(argument))
    }

    #[test]
    fn the_viewer_decides_unless_something_else_is_said() {
        let (low, high) = (TraceId([0; 16]), TraceId([0xff; 16]));
        let parent = |sampled| Some(TraceParent { trace: high, span: [1; 8], sampled });
        let usual = Sampler::read(None, None).unwrap();
        assert!(
            usual.takes(None, high) && usual.takes(parent(true), high) && !usual.takes(parent(false), high)
        );
        let all = read("always_on", "").unwrap();
        assert!(all.takes(parent(false), high));
        let none = read("always_off", "").unwrap();
        assert!(!none.takes(parent(true), low));
        let some = read("parentbased_traceidratio", "0.25").unwrap();
        assert!(some.takes(None, low) && !some.takes(None, high) && some.takes(parent(true), high));
        for (name, argument) in [("half", ""), ("traceidratio", "2"), ("parentbased_traceidratio", "x")] {
            assert!(read(name, argument).unwrap_err().to_string().contains("OTEL_TRACES_SAMPLER"));
        }
    }
}
