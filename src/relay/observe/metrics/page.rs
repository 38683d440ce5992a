//! Families of metrics, written one by one with what they are at this moment.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::tally::Snapshot;

/// A page under way.
pub struct Page<'a>(pub DescriptorEncoder<'a>);

impl Page<'_> {
    /// A number that only grows. The name is without `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    /// The same in seconds.
    pub fn seconds_counter(&mut self, name: &str, help: &str, value: Duration) -> fmt::Result {
        let counter = ConstCounter::new(value.as_secs_f64());
        counter.encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    /// Several that only grow, told apart by the label `key`.
    pub fn counters<'v>(
        &mut self,
        name: &str,
        help: &str,
        key: &str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (label, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&[(key, label)])?)?;
        }
        Ok(())
    }

    /// Several that only grow, told apart by two labels.
    pub fn counters_by_two<'v>(
        &mut self,
        name: &str,
        help: &str,
        (one, two): (&str, &str),
        values: impl IntoIterator<Item = (&'v str, &'v str, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (first, second, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&[(one, first), (two, second)])?)?;
        }
        Ok(())
    }

    /// A number of this moment; without one there is only its description.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Into<Option<f64>>) -> fmt::Result {
        let family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        value.into().map_or(Ok(()), |value| ConstGauge::new(value).encode(family))
    }

    /// Several of this moment, told apart by the label `key`.
    pub fn gauges<'v>(
        &mut self,
        name: &str,
        help: &str,
        key: &str,
        values: impl IntoIterator<Item = (&'v str, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (label, value) in values {
            ConstGauge::new(value).encode(family.encode_family(&[(key, label)])?)?;
        }
        Ok(())
    }

    /// How durations are spread, in seconds.
    pub fn histogram(&mut self, name: &str, help: &str, spread: &Snapshot) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let buckets: Vec<_> = spread.buckets().collect();
        family.encode_histogram::<NoLabelSet>(spread.sum(), spread.count(), &buckets, None)
    }

    /// A text, as the label `key` of a constant. The name is without `_info`.
    pub fn info(&mut self, name: &str, help: &str, key: &str, text: &str) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&[(key, text)])
    }
}
