//! What a node runs short of: eviction thresholds against what is left (upstream: pkg/kubelet/eviction).
//!
//! Invariant: no I/O and no clock.

use jiff::{SignedDuration, Timestamp};
use skep_api::quantity::Quantity;

use super::machine::{Left, Signals};

/// A pressure that ended goes on being reported for this long, so that the node does not flap
/// (upstream: `evictionPressureTransitionPeriod`).
const TRANSITION: SignedDuration = SignedDuration::from_secs(300);

/// What the node runs short of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// `MemoryPressure`
    pub memory: bool,
    /// `DiskPressure`: bytes or inodes of `nodefs` or `imagefs`.
    pub disk: bool,
    /// `PIDPressure`
    pub pids: bool,
}

/// The least that must be left of something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold {
    /// Bytes or a count.
    Amount(u64),
    /// A share of the capacity, from 0 to 1.
    Share(f64),
}

impl Threshold {
    /// The least amount, of this capacity.
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Amount(amount) => amount,
            // Upstream rounds down as well; a capacity is far below 2^53.
            #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
            Self::Share(share) => (capacity as f64 * share) as u64,
        }
    }

    fn is_met(threshold: Option<Self>, left: Left) -> bool {
        // A file system that counts no inodes has no capacity of them.
        left.capacity > 0 && threshold.is_some_and(|threshold| left.available < threshold.of(left.capacity))
    }
}

/// `--eviction-hard`; the default is upstream's on Linux. None is never met.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// `memory.available`
    pub memory: Option<Threshold>,
    /// `nodefs.available`
    pub node_fs: Option<Threshold>,
    /// `nodefs.inodesFree`
    pub node_inodes: Option<Threshold>,
    /// `imagefs.available`
    pub image_fs: Option<Threshold>,
    /// `imagefs.inodesFree`
    pub image_inodes: Option<Threshold>,
    /// `pid.available`
    pub pids: Option<Threshold>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            memory: Some(Threshold::Amount(100 << 20)),
            node_fs: Some(Threshold::Share(0.10)),
            node_inodes: Some(Threshold::Share(0.05)),
            image_fs: Some(Threshold::Share(0.15)),
            image_inodes: Some(Threshold::Share(0.05)),
            pids: None,
        }
    }
}

/// Why a text is no list of thresholds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// No `<` in it.
    #[error("invalid eviction threshold syntax {0}, expected <signal><operator><value>")]
    Syntax(String),
    /// A signal that is not known.
    #[error("unsupported eviction signal {0}")]
    Signal(String),
    /// Neither an amount nor a percentage.
    #[error("invalid eviction threshold value {0:?}")]
    Value(String),
}

impl Thresholds {
    /// None is ever met.
    pub const NONE: Self =
        Self { memory: None, node_fs: None, node_inodes: None, image_fs: None, image_inodes: None, pids: None };

    /// Reads `memory.available<100Mi,nodefs.available<10%`; what is not named has no threshold.
    ///
    /// # Errors
    /// See [`ThresholdError`].
    pub fn parse(text: &str) -> Result<Self, ThresholdError> {
        let mut thresholds = Self::NONE;
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (signal, value) = item.split_once('<').ok_or_else(|| ThresholdError::Syntax(item.to_owned()))?;
            let slot = match signal {
                "memory.available" => &mut thresholds.memory,
                "nodefs.available" => &mut thresholds.node_fs,
                "nodefs.inodesFree" => &mut thresholds.node_inodes,
                "imagefs.available" => &mut thresholds.image_fs,
                "imagefs.inodesFree" => &mut thresholds.image_inodes,
                "pid.available" => &mut thresholds.pids,
                _ => return Err(ThresholdError::Signal(signal.to_owned())),
            };
            *slot = Some(parse_value(value).ok_or_else(|| ThresholdError::Value(value.to_owned()))?);
        }
        Ok(thresholds)
    }
}

fn parse_value(value: &str) -> Option<Threshold> {
    if let Some(percent) = value.strip_suffix('%') {
        let percent: f64 = percent.parse().ok()?;
        return (0.0..=100.0).contains(&percent).then_some(Threshold::Share(percent / 100.0));
    }
    let amount = value.parse::<Quantity>().ok()?.value();
    u64::try_from(amount).ok().map(Threshold::Amount)
}

/// Remembers when each pressure was last felt.
#[derive(Debug, Clone, Default)]
pub struct PressureMonitor {
    memory: Option<Timestamp>,
    disk: Option<Timestamp>,
    pids: Option<Timestamp>,
}

impl PressureMonitor {
    /// The pressures now: those felt, and those felt within the transition period.
    pub fn observe(&mut self, thresholds: &Thresholds, signals: &Signals, now: Timestamp) -> Pressure {
        let disk = [
            (thresholds.node_fs, signals.node_fs),
            (thresholds.node_inodes, signals.node_inodes),
            (thresholds.image_fs, signals.image_fs),
            (thresholds.image_inodes, signals.image_inodes),
        ];
        let lasting = |felt: bool, last: &mut Option<Timestamp>| {
            if felt {
                *last = Some(now);
            }
            last.is_some_and(|last| now.duration_since(last) < TRANSITION)
        };
        Pressure {
            memory: lasting(Threshold::is_met(thresholds.memory, signals.memory), &mut self.memory),
            disk: lasting(disk.into_iter().any(|(least, left)| Threshold::is_met(least, left)), &mut self.disk),
            pids: lasting(Threshold::is_met(thresholds.pids, signals.pids), &mut self.pids),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("time")
    }

    fn plenty() -> Signals {
        let left = Left { available: 90 << 30, capacity: 100 << 30 };
        Signals { memory: left, node_fs: left, node_inodes: left, image_fs: left, image_inodes: left, pids: left }
    }

    #[test]
    fn thresholds_are_amounts_or_shares() {
        let thresholds = Thresholds::parse("memory.available<500Mi, nodefs.available<10%").expect("thresholds");
        assert_eq!(thresholds.memory, Some(Threshold::Amount(500 << 20)));
        assert_eq!(thresholds.node_fs, Some(Threshold::Share(0.1)));
        assert_eq!(thresholds.image_fs, None);
    }

    #[test]
    fn a_wrong_threshold_is_named() {
        assert_eq!(Thresholds::parse("memory=1"), Err(ThresholdError::Syntax("memory=1".to_owned())));
        assert_eq!(Thresholds::parse("disk.free<1"), Err(ThresholdError::Signal("disk.free".to_owned())));
        assert_eq!(Thresholds::parse("pid.available<101%"), Err(ThresholdError::Value("101%".to_owned())));
    }

    #[test]
    fn a_node_with_plenty_feels_no_pressure() {
        let pressure = PressureMonitor::default().observe(&Thresholds::default(), &plenty(), at(0));
        assert_eq!(pressure, Pressure::default());
    }

    #[test]
    fn a_pressure_outlasts_its_cause_by_the_transition_period() {
        let mut monitor = PressureMonitor::default();
        let short = Signals { memory: Left { available: 99 << 20, capacity: 8 << 30 }, ..plenty() };
        let mut memory =
            |signals: &Signals, second| monitor.observe(&Thresholds::default(), signals, at(second)).memory;
        assert!(memory(&short, 0));
        assert!(memory(&plenty(), 299));
        assert!(!memory(&plenty(), 300));
    }

    #[test]
    fn a_file_system_without_inodes_is_not_short_of_them() {
        let signals = Signals { node_inodes: Left::default(), ..plenty() };
        assert!(!PressureMonitor::default().observe(&Thresholds::default(), &signals, at(0)).disk);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_thresholds_or_an_error(value in "[0-9.eE+%a-zA-Z-]{0,12}") {
            let thresholds = Thresholds::parse(&format!("memory.available<{value}"));
            let least = thresholds.ok().and_then(|thresholds| thresholds.memory).map(|threshold| threshold.of(1000));
            if value.ends_with('%') {
                proptest::prop_assert!(least.is_none_or(|least| least <= 1000));
            }
        }
    }
}
