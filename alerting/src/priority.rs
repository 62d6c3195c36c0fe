//! The priority formula: plain, deterministic, and the same on every machine.
//!
//! `priority = weight(severity) + ln(1 + impact)`, where weight is 1000 for critical, 6 for high, 3 for warning and 0
//! for info, and impact is what the rule's impact column says, in the unit of that column, at least 0; without an
//! impact column the second part is 0. The result is rounded to three decimals.
//!
//! So ten times the impact is worth 2.3, a step of severity is worth twenty times the impact, and the impact part,
//! being at most [`IMPACT_PART_MAX`], never lifts anything above a critical alert.

use crate::rules::Severity;

/// ln(1 + 10^26), the largest impact that counts. Larger ones count as this.
pub const IMPACT_PART_MAX: f64 = 60.0;

/// What severity alone is worth.
pub const fn severity_weight(severity: Severity) -> f64 {
    match severity {
        Severity::Critical => 1000.0,
        Severity::High => 6.0,
        Severity::Warning => 3.0,
        Severity::Info => 0.0,
    }
}

/// The priority of one alert; larger is more urgent. Never NaN or infinite.
pub fn priority(severity: Severity, impact: Option<f64>) -> f64 {
    let impact = impact.filter(|i| i.is_finite()).unwrap_or(0.0).max(0.0);
    let sum = severity_weight(severity) + impact.ln_1p().min(IMPACT_PART_MAX);
    (sum * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[expect(clippy::float_cmp, reason = "the formula rounds to three decimals")]
    fn check(severity: Severity, impact: Option<f64>, expected: f64) {
        assert_eq!(priority(severity, impact), expected);
    }

    #[test]
    fn follows_the_formula() {
        check(Severity::Info, None, 0.0);
        check(Severity::Warning, Some(0.0), 3.0);
        check(Severity::High, Some(1234.5), 13.119);
        check(Severity::Critical, Some(1.0), 1000.693);
        check(Severity::High, Some(-5.0), 6.0);
        check(Severity::High, Some(f64::NAN), 6.0);
        check(Severity::Info, Some(f64::INFINITY), 0.0);
        check(Severity::Info, Some(f64::MAX), 60.0);
    }

    proptest! {
        #[test]
        fn critical_is_above_all_others_and_more_impact_is_never_less(
            a in proptest::num::f64::ANY,
            b in proptest::num::f64::ANY,
        ) {
            for severity in [Severity::Info, Severity::Warning, Severity::High] {
                prop_assert!(priority(Severity::Critical, Some(a)) > priority(severity, Some(b)));
                if a.is_finite() && b.is_finite() && a <= b {
                    prop_assert!(priority(severity, Some(a)) <= priority(severity, Some(b)));
                }
            }
        }
    }
}
