//! Limits that a standby must not have less of than its main: with less it refuses to start, or pauses its replay
//! (MEASURED M17).

/// All of them, of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandbyLimits([u32; 5]);

/// One of them that is smaller than it is on main.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSmall {
    /// The setting.
    pub name: &'static str,
    /// Its value.
    pub has: u32,
    /// Main's.
    pub needs: u32,
}

impl StandbyLimits {
    /// Their names.
    pub const NAMES: [&str; 5] = [
        "max_connections",
        "max_locks_per_transaction",
        "max_prepared_transactions",
        "max_wal_senders",
        "max_worker_processes",
    ];

    /// Takes them from settings by name.
    ///
    /// # Errors
    /// The name of the first that is no number, or missing.
    pub fn read<'a>(setting: impl Fn(&str) -> Option<&'a str>) -> Result<Self, &'static str> {
        let mut limits = Self([0; 5]);
        for (limit, name) in limits.0.iter_mut().zip(Self::NAMES) {
            *limit = setting(name).and_then(|text| text.parse().ok()).ok_or(name)?;
        }
        Ok(limits)
    }

    /// Those that are smaller than on a main.
    #[must_use]
    pub fn smaller_than(self, main: Self) -> Vec<TooSmall> {
        let pairs = Self::NAMES.into_iter().zip(self.0.into_iter().zip(main.0));
        pairs
            .filter(|(_, (has, needs))| has < needs)
            .map(|(name, (has, needs))| TooSmall { name, has, needs })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_must_not_have_less_than_its_main() {
        let with = |connections: &'static str| {
            StandbyLimits::read(|name| Some(if name == "max_connections" { connections } else { "10" }))
        };
        let (small, large) = (with("50").unwrap(), with("100").unwrap());
        assert_eq!(small.smaller_than(large), [TooSmall { name: "max_connections", has: 50, needs: 100 }]);
        assert_eq!(large.smaller_than(small), []);
        assert_eq!(with("many"), Err("max_connections"));
    }
}
