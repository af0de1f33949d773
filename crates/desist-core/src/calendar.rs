//! Deadlines in business days, by two calendars that are data (`calendars.json`, with version and
//! sources).
//!
//! - `ca_strict`: Monday to Saturday without nine holidays. Alarms and "late" go by this one.
//! - `ca_conventional`: the same without Saturdays, which is how most people count.
//!
//! No law defines "business day" for the CCPA, so wherever a reading is open the strict calendar
//! takes the one that leaves less time: Saturdays count, and so do contested and partial holidays.
//! For the same reason a holiday that falls on a week-end takes out its own date and no other;
//! neither calendar has an "observed" Friday or Monday, since each would add a day.

use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use serde::Deserialize;

/// Business days within which an opt-out or limit must be honoured (11 CCR 7026(f), 7027(g)).
pub const CCPA_BUSINESS_DAYS: u32 = 15;

/// The last days to act on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// By `ca_strict`; never later than `conventional`.
    pub strict: Date,
    /// By `ca_conventional`.
    pub conventional: Date,
}

/// The last days to act on what was received at `acted_at_unix_seconds` (when the consumer acted,
/// not when somebody keyed it in), `business_days` later. The day received is the one that
/// `time_zone` shows then, whatever the hour; it does not count and the last day does. Times and
/// dates outside of what [`jiff`] knows (the years -9999 to 9999) become its first or last day.
pub fn deadlines(acted_at_unix_seconds: i64, time_zone: &TimeZone, business_days: u32) -> Deadlines {
    let ends = if acted_at_unix_seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    let acted_at = Timestamp::from_second(acted_at_unix_seconds).unwrap_or(ends);
    let received = time_zone.to_datetime(acted_at).date();
    Deadlines {
        strict: CALENDARS.add(&CALENDARS.strict, received, business_days),
        conventional: CALENDARS.add(&CALENDARS.conventional, received, business_days),
    }
}

/// Version of the calendar data that [`deadlines`] goes by; it changes with every change of a date.
pub fn calendar_version() -> u32 {
    CALENDARS.version
}

/// The time zone of an IANA name, from the time zone data inside the program.
pub fn parse_time_zone(name: &str) -> Result<TimeZone, UnknownTimeZone> {
    TimeZone::get(name).map_err(|_| UnknownTimeZone { name: name.to_owned() })
}

/// No time zone has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown time zone {name:?}: use an IANA name such as \"America/Los_Angeles\"")]
pub struct UnknownTimeZone {
    /// The name asked for.
    pub name: String,
}

static CALENDARS: LazyLock<Calendars> =
    LazyLock::new(|| serde_json::from_str(include_str!("calendars.json")).expect("the calendars are valid, a test reads them"));

// Names and sources in the data are for people.
#[derive(Deserialize)]
struct Calendars {
    version: u32,
    strict: Calendar,
    conventional: Calendar,
    holidays: Vec<Holiday>,
}

#[derive(Deserialize)]
struct Calendar {
    closed_weekdays: Vec<Day>,
}

#[derive(Deserialize)]
struct Holiday {
    month: i8,
    #[serde(flatten)]
    rule: Rule,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Rule {
    Fixed { day: i8 },
    // `nth` counts from the end of the month when negative.
    Nth { weekday: Day, nth: i8 },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(remote = "Weekday", rename_all = "snake_case")]
enum WeekdayName {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
struct Day(#[serde(with = "WeekdayName")] Weekday);

impl Holiday {
    fn falls_on(&self, date: Date) -> bool {
        date.month() == self.month
            && match self.rule {
                Rule::Fixed { day } => date.day() == day,
                Rule::Nth { weekday, nth } => date.nth_weekday_of_month(nth, weekday.0).is_ok_and(|it| it == date),
            }
    }
}

impl Calendars {
    fn add(&self, calendar: &Calendar, received: Date, business_days: u32) -> Date {
        let mut date = received;
        let mut left = business_days;
        while left > 0 {
            let Ok(next) = date.tomorrow() else { break };
            date = next;
            let closed =
                calendar.closed_weekdays.contains(&Day(date.weekday())) || self.holidays.iter().any(|holiday| holiday.falls_on(date));
            left -= u32::from(!closed);
        }
        date
    }
}

#[cfg(test)]
mod tests {
    use jiff::Span;
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    fn pacific() -> TimeZone {
        parse_time_zone("America/Los_Angeles").expect("bundled")
    }

    // Deadlines of what a person does at this Pacific wall clock time.
    fn received(day: Date, hour: i8, minute: i8) -> Deadlines {
        let at = day.at(hour, minute, 0, 0).to_zoned(pacific()).expect("in range");
        deadlines(at.timestamp().as_second(), &pacific(), CCPA_BUSINESS_DAYS)
    }

    #[test]
    fn fifteen_business_days() {
        for (day, strict, conventional) in [
            // Over Labor Day; 9 September counts; a Saturday ends it and nothing rolls.
            (date(2026, 9, 1), date(2026, 9, 19), date(2026, 9, 23)),
            // Over Thanksgiving; the Friday after counts.
            (date(2026, 11, 20), date(2026, 12, 9), date(2026, 12, 14)),
            // Over Christmas and New Year.
            (date(2026, 12, 18), date(2027, 1, 7), date(2027, 1, 12)),
            // 4 July 2026 is a Saturday: Friday the third counts all the same.
            (date(2026, 7, 1), date(2026, 7, 20), date(2026, 7, 22)),
            // 4 July 2027 is a Sunday: Monday the fifth counts all the same.
            (date(2027, 7, 1), date(2027, 7, 19), date(2027, 7, 22)),
            // King's and Presidents' Day, 12 February counts.
            (date(2027, 1, 15), date(2027, 2, 3), date(2027, 2, 8)),
            (date(2027, 2, 9), date(2027, 2, 27), date(2027, 3, 3)),
            // Memorial Day is the last Monday, of five in 2027.
            (date(2027, 5, 20), date(2027, 6, 8), date(2027, 6, 11)),
            // Veterans Day.
            (date(2026, 11, 2), date(2026, 11, 20), date(2026, 11, 24)),
        ] {
            assert_eq!(received(day, 12, 0), Deadlines { strict, conventional }, "received {day}");
        }
    }

    #[test]
    fn the_pacific_day_counts_whatever_the_hour() {
        let day = date(2026, 9, 1);
        assert_eq!(received(day, 23, 59), received(day, 0, 1));
        assert_ne!(received(day, 23, 59), received(day.tomorrow().expect("in range"), 0, 1));
        // Days of 23 and 25 hours, to both ends.
        for day in [date(2026, 3, 8), date(2026, 11, 1)] {
            assert_eq!(received(day, 0, 0), received(day, 12, 0));
            assert_eq!(received(day, 23, 59), received(day, 12, 0));
        }
        // The same second is already the next day in UTC.
        let evening = day.at(20, 0, 0, 0).to_zoned(pacific()).expect("in range").timestamp().as_second();
        assert_eq!(deadlines(evening, &pacific(), 1).strict, date(2026, 9, 2));
        assert_eq!(deadlines(evening, &TimeZone::UTC, 1).strict, date(2026, 9, 3));
    }

    #[test]
    fn a_letter_is_due_from_the_day_it_was_mailed() {
        let (mailed, keyed) = (date(2026, 9, 1), date(2026, 9, 7));
        assert_eq!(received(mailed, 9, 0).strict, date(2026, 9, 19));
        assert!(received(keyed, 9, 0).strict > date(2026, 9, 19), "going by the day of keying gives too much time");
    }

    #[test]
    fn numbers_without_a_date_end_at_the_last() {
        assert_eq!(deadlines(i64::MAX, &pacific(), u32::MAX).strict, Date::MAX);
        assert_eq!(deadlines(i64::MIN, &TimeZone::UTC, 0).strict, date(-9999, 1, 2));
        assert_eq!(deadlines(0, &TimeZone::UTC, 0).conventional, date(1970, 1, 1));
    }

    #[test]
    fn data_is_whole() {
        assert_eq!((calendar_version(), CALENDARS.holidays.len()), (1, 9));
        let closed = |calendar: &Calendar| calendar.closed_weekdays.iter().map(|day| day.0).collect::<Vec<_>>();
        assert_eq!(closed(&CALENDARS.strict), [Weekday::Sunday]);
        assert_eq!(closed(&CALENDARS.conventional), [Weekday::Saturday, Weekday::Sunday]);
        for year in 2020..2060 {
            let days = date(year, 1, 1).series(Span::new().days(1)).take_while(|day| day.year() == year);
            let holidays = days.filter(|day| CALENDARS.holidays.iter().any(|holiday| holiday.falls_on(*day)));
            assert_eq!(holidays.count(), 9, "{year}");
        }
    }

    #[test]
    fn time_zones_by_name() {
        assert!(parse_time_zone("UTC").is_ok());
        for wrong in ["", "Pacific", "America/Los Angeles", "../../etc/passwd", "+08:00"] {
            let message = parse_time_zone(wrong).expect_err(wrong).to_string();
            assert!(message.contains("America/Los_Angeles"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn strict_is_first_and_later_is_never_earlier(at in 0..4_102_444_800_i64, later in 0..40_000_000_i64, days in 0..60_u32) {
            let (first, second) = (deadlines(at, &pacific(), days), deadlines(at + later, &pacific(), days));
            prop_assert!(first.strict <= first.conventional);
            prop_assert!(first.strict <= second.strict && first.conventional <= second.conventional);
            prop_assert!(first.strict <= deadlines(at, &pacific(), days + 1).strict);
        }
    }
}
