//! Synthetic files: every table of the catalogue has records, made from the catalogue itself where nothing special is wanted.

use liaison_records::{
    catalogue::{self, ColumnType, Table, TableKind},
    codes::Code,
    encoding::{self, RecordRef},
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::Replica;

/// A person to be put into a replica.
pub struct Person {
    pub file: i64,
    pub surname: &'static str,
    pub given: &'static str,
    pub alias: Option<(&'static str, &'static str)>,
    pub birth_date: &'static str,
    pub status: &'static str,
    pub at_large: &'static str,
    pub warrant: &'static str,
}

impl Person {
    pub const fn new(file: i64, surname: &'static str, given: &'static str, birth_date: &'static str) -> Self {
        Self {
            file,
            surname,
            given,
            alias: None,
            birth_date,
            status: "Released",
            at_large: "NotAtLarge",
            warrant: "NoWarrant",
        }
    }
}

/// The people that most tests use.
pub fn people() -> Vec<Person> {
    vec![
        Person {
            alias: Some(("Rivers", "Johnny")),
            status: "Suspended",
            at_large: "UnlawfullyAtLarge",
            warrant: "Outstanding",
            ..Person::new(101, "Larivière", "Jean-François", "1979-03-14")
        },
        Person {
            status: "Suspended",
            warrant: "Outstanding",
            ..Person::new(102, "Tremblay", "Marc-André", "1985-11-02")
        },
        Person::new(103, "Tremblay", "Sylvie", "1990-07-21"),
        Person { alias: Some(("Smith", "Bobby")), ..Person::new(104, "O'Brien", "Robert", "1968-01-30") },
        Person { at_large: "Escaped", status: "InCustody", ..Person::new(105, "St-Pierre", "Luc", "1974-09-09") },
        Person::new(106, "Smyth", "Dennis", "1992-12-25"),
        Person::new(107, "Trembley", "Kevin", "1988-05-05"),
        Person::new(108, "Nuñez", "María José", "1983-08-17"),
    ]
}

/// A value of the column's type that nobody takes for real.
fn value(ty: ColumnType, number: i64) -> Value {
    match ty {
        ColumnType::Text => json!(format!("synthetic {number}")),
        ColumnType::Integer => json!(number % 1000),
        ColumnType::Boolean => json!(number % 2 == 0),
        ColumnType::Date => json!(format!("2024-{:02}-{:02}", number % 12 + 1, number % 28 + 1)),
        ColumnType::Instant => json!(format!("2024-{:02}-{:02}T04:05:06Z", number % 12 + 1, number % 28 + 1)),
        ColumnType::Hash => json!(hex::encode(Sha256::digest(number.to_be_bytes()))),
        ColumnType::Reference(_) => json!(number % 2 + 1),
        ColumnType::Code(list) => json!(list.codes[usize::try_from(number).unwrap() % list.codes.len()].code),
    }
}

fn record(table: &'static Table, number: i64, special: &Value) -> Value {
    let mut body: Map<String, Value> =
        table.columns.iter().map(|c| (c.json_name.to_owned(), value(c.ty, number))).collect();
    body.extend(special.as_object().cloned().unwrap_or_default());
    Value::Object(body)
}

/// The columns of a table that a reader would look at, for one person.
fn special(person: &Person, table: &str, jpeg_hash: &str) -> Value {
    let telephone = "604-555-0142";
    match table {
        "offender" => json!({
            "fps": format!("{:06}B", person.file * 1000 + 7), "surname": person.surname, "given": person.given,
            "sex": "Male", "birthDate": person.birth_date, "birthPlace": "Hull", "heightCm": 181, "weightKg": 84,
            "custody": if person.status == "InCustody" { "Incarcerated" } else { "Community" },
            "status": person.status, "releaseType": "StatutoryRelease", "atLarge": person.at_large,
            "warrant": person.warrant, "jurisdiction": "CA-BC", "municipality": "5915022", "municipalityName": "Vancouver"
        }),
        "caution" => json!({"kind": "Armed", "notedOn": "2025-02-11", "detail": null}),
        "alias" => person.alias.map_or(
            Value::Null,
            |(surname, given)| json!({"surname": surname, "given": given, "birthDate": "1980-04-01"}),
        ),
        "photograph" => json!({"sha256": jpeg_hash, "takenOn": "2025-06-03", "format": "image/jpeg",
            "widthPx": 240, "heightPx": 300, "sizeBytes": 20_000}),
        "supervision" => json!({
            "officer": 1, "officerName": "Helen Marchand", "officerTelephone": telephone, "office": 1,
            "officeName": "Vancouver Parole Office", "officeNameFr": "Bureau de libération conditionnelle de Vancouver",
            "startedOn": "2025-05-02", "endedOn": null, "residenceAddress": "100 Example Street",
            "municipality": "5915022", "municipalityName": "Vancouver"
        }),
        "parole_officer" => {
            json!({"name": "Helen Marchand", "telephone": telephone, "email": "helen.marchand@example.ca",
            "office": 1, "officeName": "Vancouver Parole Office", "officeNameFr": "Bureau de Vancouver"})
        }
        "office" => json!({"nameEn": "Vancouver Parole Office",
            "nameFr": "Bureau de libération conditionnelle de Vancouver", "telephone": "604-555-0100",
            "dutyTelephone": "1-800-555-0199", "municipality": "5915022", "municipalityName": "Vancouver"}),
        "condition" => json!({"textEn": "Not to consume, purchase or possess alcohol.",
            "textFr": "Ne pas consommer, acheter ou posséder d'alcool.", "imposedOn": "2025-05-02", "endsOn": null}),
        "warrant" => json!({"number": "W-2026-0417", "state": person.warrant, "section": "135(1)",
            "issuedOn": "2026-11-18", "executedOn": null, "withdrawnOn": null, "extent": "Canada", "caution": null}),
        "release" => json!({"kind": "StatutoryRelease", "startedOn": "2025-05-02", "endsOn": "2027-01-15",
            "endedOn": null, "municipality": "5915022", "municipalityName": "Vancouver"}),
        "sentence" => {
            json!({"term": 1, "court": "Supreme Court of British Columbia", "lengthDays": 1826, "endedOn": null})
        }
        "risk_assessment" => json!({"language": "eng", "assessor": "Helen Marchand", "comment":
            "Synthetic text. The person keeps appointments, has steady work and a stable place to live, and has spoken openly about the risk of relapse."}),
        _ => Value::Null,
    }
}

/// Puts people into a replica, with records in every table of its groups, as a batch of sync would.
pub async fn fill(replica: &Replica, people: &[Person], groups: &[&str]) {
    let share = replica.partner.share_schema();
    let jpeg = portrait();
    let hash = Sha256::digest(&jpeg).to_vec();
    let mut records: Vec<(Option<i64>, &'static Table, i64, String)> = Vec::new();
    for table in catalogue::TABLES.iter().filter(|table| groups.contains(&table.group.as_str())) {
        if table.kind == TableKind::Reference {
            for id in 1..=2 {
                let special = if id == 1 { special(&people[0], table.name, "") } else { Value::Null };
                records.push((None, table, id, record(table, id, &special).to_string()));
            }
            continue;
        }
        for person in people {
            // Two aliases for those who have one, one warrant for those who are sought.
            let (id, skip) = match table.name {
                "offender" => (person.file, false),
                "alias" => (person.file * 10, person.alias.is_none()),
                "warrant" => (person.file * 10, person.warrant == "NoWarrant"),
                "caution" => (person.file * 10, person.at_large == "NotAtLarge"),
                _ => (person.file * 10, false),
            };
            if !skip {
                let special = special(person, table.name, &hex::encode(&hash));
                records.push((Some(person.file), table, id, record(table, id, &special).to_string()));
            }
        }
    }
    let mut transaction = replica.admin.begin().await.unwrap();
    for (offender, table, id, body) in &records {
        let sql = format!("INSERT INTO {share}.record SELECT $1, $2, $3, $4, $5::jsonb::text, sha256($5::bytea), 1");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(offender)
            .bind(table.group.as_str())
            .bind(table.name)
            .bind(id)
            .bind(body)
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    for person in people {
        let own = records.iter().filter(|(offender, ..)| *offender == Some(person.file));
        let refs = own.map(|(offender, table, id, body)| RecordRef {
            offender: *offender,
            grp: table.group.as_str(),
            tbl: table.name,
            id: *id,
            body,
        });
        let s = encoding::subject(refs).unwrap();
        let sql = format!(
            "INSERT INTO {share}.subject VALUES ($1, $2, $3, $4, $5, $6, $7::date, $8::date[], $9, $10, $11, $12, $13, $14, 1)"
        );
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(s.offender)
            .bind(s.fps)
            .bind(s.surname)
            .bind(s.given)
            .bind(s.names)
            .bind(s.sounds)
            .bind(s.birth_date)
            .bind(s.other_dates)
            .bind(s.custody)
            .bind(s.status)
            .bind(s.at_large)
            .bind(s.jurisdiction)
            .bind(s.municipality)
            .bind(s.photograph.map(|p| p.to_vec()))
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    sqlx::query(sqlx::AssertSqlSafe(format!("INSERT INTO {share}.photograph VALUES ($1, $2)")))
        .bind(&hash)
        .bind(&jpeg)
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
}

/// The groups that the replica's cursor grants.
pub const GROUPS: &[&str] = &[
    "identity",
    "aliases",
    "photograph",
    "sentence",
    "release",
    "conditions",
    "supervision",
    "warrants",
    "riskAssessments",
];

/// A silhouette, unmistakably nobody.
fn portrait() -> Vec<u8> {
    let (width, height) = (240_u16, 300_u16);
    let mut pixels = Vec::with_capacity(usize::from(width) * usize::from(height) * 3);
    for y in 0..i32::from(height) {
        for x in 0..i32::from(width) {
            let ellipse = |cx: i32, cy: i32, rx: i32, ry: i32| {
                let (dx, dy) = ((x - cx) * 1000 / rx, (y - cy) * 1000 / ry);
                dx * dx + dy * dy <= 1_000_000
            };
            let body = ellipse(120, 125, 52, 66) || ellipse(120, 310, 105, 110);
            let stripe = (x + y) % 60 < 4;
            pixels.extend_from_slice(match (body, stripe) {
                (true, true) => &[120, 130, 142],
                (true, false) => &[88, 98, 112],
                (false, true) => &[196, 204, 212],
                (false, false) => &[214, 220, 226],
            });
        }
    }
    let mut jpeg = Vec::new();
    jpeg_encoder::Encoder::new(&mut jpeg, 75).encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    jpeg
}
