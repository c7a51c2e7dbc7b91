//! One synthetic offender file: who, where, under what sentence; its children are in the submodules.
//!
//! Pure: the same seed, number, custody and date give the same rows, whatever else is made and in whatever order. The
//! proportions are those of `data/statistics.json`; what it does not say is said here.

use jiff::{ToSpan as _, civil::Date};
use liaison_records::codes::Custody;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    data::{Municipality, Weighted},
    error::Error,
    model::{Model, region_of},
    photo,
    rows::{Rows, Value},
    values,
};

mod history;
mod life;
mod person;
mod reports;

/// Rows of one file in one table have ids from `offender * ID_SPACE` on: no counter is shared between files.
pub const ID_SPACE: i64 = 100;

/// What all files have in common.
#[derive(Debug, Clone, Copy)]
pub struct Maker<'a> {
    /// Weighted tables.
    pub model: &'a Model,
    /// The seed of the population.
    pub seed: u64,
    /// The date of the extract.
    pub as_of: Date,
}

/// The sentence that the file is about.
#[derive(Debug, Clone)]
struct Sentence {
    kind: &'static str,
    days: Option<i32>,
    commenced: Date,
    /// Full parole eligibility of an indeterminate sentence, in years.
    parole_years: i32,
    expires: Option<Date>,
    supervision_ends: Option<Date>,
}

/// A file while it is made.
struct File<'a> {
    maker: Maker<'a>,
    rng: ChaCha8Rng,
    id: i64,
    counts: std::collections::HashMap<&'static str, i64>,
    custody: Custody,
    status: &'static str,
    release: Option<&'static str>,
    at_large: &'static str,
    warrant: &'static str,
    female: bool,
    french: bool,
    region: &'static str,
    group: String,
    given: String,
    surname: String,
    birth: Date,
    /// Where the person lives or last lived.
    home: usize,
    institution: usize,
    level: &'static str,
    category: String,
    sentence: Sentence,
    /// When an archived file ended.
    ended: Option<Date>,
    quashed: bool,
    officer: i64,
    officer_name: String,
    office: i64,
}

fn plus(from: Date, days: i32) -> Date {
    from.saturating_add(days.days())
}

fn between(from: Date, to: Date) -> i32 {
    from.until(to).map_or(0, |span| span.get_days())
}

/// Unique for each id below 26 million: multiplying by a number prime to it permutes what can be counted.
pub fn fps(seed: u64, id: i64) -> String {
    const SPACE: u64 = 26_000_000;
    let n = (id.unsigned_abs().wrapping_mul(7_368_787) + seed % SPACE) % SPACE;
    let letter = char::from(b'A' + u8::try_from(n % 26).unwrap_or(0));
    format!("{:06}{letter}", n / 26)
}

impl Maker<'_> {
    /// Adds the file with this number; `custody` says which kind it is.
    pub fn file(&self, id: i64, custody: Custody, rows: &mut Rows) -> Result<(), Error> {
        let mut file = File::new(*self, id, custody);
        file.own(rows);
        file.identity(rows);
        if custody != Custody::Archived {
            file.photograph(rows)?;
        }
        file.sentences(rows);
        file.offences(rows);
        file.releases(rows);
        file.supervisions(rows);
        file.warrants(rows);
        file.movements(rows);
        file.reports(rows);
        rows.files += 1;
        Ok(())
    }
}

impl<'a> File<'a> {
    /// The municipality of the file's place.
    fn place(&self) -> &'a Municipality {
        let data = &self.maker.model.data;
        let index =
            if self.custody == Custody::Incarcerated { data.institution_places[self.institution] } else { self.home };
        &data.municipalities[index]
    }

    fn own(&mut self, rows: &mut Rows) {
        let place = self.place();
        let sex = if self.rng.random_range(0..22_000) < 39 {
            "AnotherGender"
        } else if self.female {
            "Female"
        } else {
            "Male"
        };
        let (height, weight) = if self.female { (164, 70) } else { (177, 86) };
        let height = height + self.spread(18);
        let weight = weight + self.spread(26);
        let born_here = self.rng.random_bool(0.8);
        let birth_place = born_here.then(|| self.maker.model.data.municipalities[self.home].name_en.clone());
        let eyes = self.pick(&["Brown", "Brown", "Brown", "Blue", "Blue", "Green", "Hazel", "Grey"]);
        let hair = self.pick(&["Black", "Brown", "Brown", "Blond", "Red", "Grey", "Bald"]);
        rows.push(
            "offender",
            self.id,
            None,
            &values![
                fps(self.maker.seed, self.id),
                &self.surname,
                &self.given,
                sex,
                self.birth,
                birth_place,
                self.language(),
                height,
                weight,
                eyes,
                hair,
                liaison_records::codes::Code::as_str(self.custody),
                self.status,
                self.release,
                self.at_large,
                self.warrant,
                &place.jurisdiction,
                &place.csd_code,
                &place.name_en,
            ],
        );
    }

    fn photograph(&mut self, rows: &mut Rows) -> Result<(), Error> {
        let since = between(self.sentence.commenced, self.maker.as_of).clamp(1, 5 * 365);
        let taken = plus(self.maker.as_of, -self.rng.random_range(0..since));
        let reason = if since < 5 * 365 { "Admission" } else { "Periodic" };
        // A stream of its own, so that a change elsewhere in the file leaves the picture alone.
        let mut rng = ChaCha8Rng::seed_from_u64(self.maker.seed ^ 0x70_686f_746f);
        rng.set_stream(self.id.unsigned_abs());
        let jpeg = photo::photograph(&mut rng, taken, self.french)?;
        let sha256: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&jpeg).into();
        let size = i32::try_from(jpeg.len()).unwrap_or(i32::MAX);
        let row = values![
            Value::Bytes(sha256.to_vec()),
            taken,
            reason,
            "image/jpeg",
            i32::from(photo::WIDTH),
            i32::from(photo::HEIGHT),
            size
        ];
        rows.push_image(&sha256, &jpeg);
        self.add(rows, "photograph", &row);
        Ok(())
    }

    /// Adds a child row with the file's next id in that table.
    fn add(&mut self, rows: &mut Rows, table: &'static str, values: &[Value]) {
        let count = self.counts.entry(table).or_insert(0);
        if *count < ID_SPACE {
            rows.push(table, self.id * ID_SPACE + *count, Some(self.id), values);
            *count += 1;
        }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.random_range(0..of.len())]
    }

    fn draw(&mut self, from: &Weighted<String>) -> String {
        from.at(self.rng.random()).cloned().unwrap_or_default()
    }

    /// Between `-by` and `by`, more often near zero.
    fn spread(&mut self, by: i32) -> i32 {
        i32::midpoint(self.rng.random_range(-by..=by), self.rng.random_range(-by..=by))
    }

    /// A count that goes on with probability `p`, up to `most`.
    fn several(&mut self, p: f64, most: i32) -> i32 {
        let mut n = 0;
        while n < most && self.rng.random_bool(p) {
            n += 1;
        }
        n
    }

    /// A date in `from..=to`, or `to` when that is empty.
    fn when(&mut self, from: Date, to: Date) -> Date {
        let days = between(from, to);
        if days <= 0 { to } else { plus(from, self.rng.random_range(0..=days)) }
    }

    fn language(&self) -> &'static str {
        if self.french { "fra" } else { "eng" }
    }

    fn archived(&self) -> bool {
        self.custody == Custody::Archived
    }

    /// The last day that anything can have happened on.
    fn last(&self) -> Date {
        self.ended.unwrap_or(self.maker.as_of)
    }

    /// The institution's names.
    fn institution_names(&self) -> (&'a String, &'a String) {
        let institution = &self.maker.model.data.institutions[self.institution];
        (&institution.name_en, &institution.name_fr)
    }

    fn institution_id(&self) -> i64 {
        i64::try_from(self.institution).unwrap_or(0) + 1
    }

    fn court(&self) -> String {
        let home = &self.maker.model.data.municipalities[self.home];
        match region_of(&home.jurisdiction) {
            "Quebec" => format!("Cour du Québec, {}", home.name_en),
            _ => format!("Superior Court, {}", home.name_en),
        }
    }
}

/// Beds, or the default of statistics.json where they are not known (`placement/default_rated_capacity_where_blank`).
fn capacity(institution: &crate::data::Institution) -> f64 {
    institution.rated_capacity.unwrap_or(match (institution.kind.as_str(), institution.security_level.as_str()) {
        ("HealingLodge", _) => 60.0,
        ("TreatmentCentre", _) => 150.0,
        (_, "Maximum") => 350.0,
        (_, "Medium") => 480.0,
        (_, "Minimum") => 140.0,
        _ if institution.population_group == "Women" => 130.0,
        _ => 520.0,
    })
}

/// The code of a share's key.
fn code(key: &str) -> &'static str {
    match key {
        "DayParole" => "DayParole",
        "FullParole" => "FullParole",
        "LongTermSupervision" => "LongTermSupervision",
        "StatutoryRelease" => "StatutoryRelease",
        "Minimum" => "Minimum",
        "Maximum" => "Maximum",
        _ => "Medium",
    }
}

#[cfg(test)]
mod tests;
