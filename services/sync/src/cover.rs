//! Which scopes cover a file: terms hashed by key and value, as bitsets, so that the answer costs what a file's own values
//! name and not how many partners there are. Pure.

use std::collections::HashMap;

use liaison_records::population::{Axes, KEYS, Population};

use crate::terms::Scope;

/// A set of small numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Bits(Vec<u64>);

impl Bits {
    fn insert(&mut self, bit: usize) {
        let word = bit / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (bit % 64);
    }

    fn word(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(index * 64 + bit)
            })
        })
    }
}

/// The terms of one population a scope.
#[derive(Debug)]
struct Side {
    /// The scope that each term is of.
    owners: Vec<usize>,
    /// For each key, the terms that it does not restrict, and those that name a value.
    keys: [(Bits, HashMap<String, Bits>); KEYS],
}

impl Side {
    fn new<'a>(populations: impl Iterator<Item = &'a Population>) -> Self {
        let mut side = Self { owners: Vec::new(), keys: std::array::from_fn(|_| (Bits::default(), HashMap::new())) };
        for (scope, population) in populations.enumerate() {
            for term in &population.any_of {
                let keys = term.keys();
                // A term without a key covers nothing.
                if keys.iter().all(|(_, values)| values.is_none()) {
                    continue;
                }
                let number = side.owners.len();
                side.owners.push(scope);
                for ((free, named), (_, values)) in side.keys.iter_mut().zip(keys) {
                    let Some(values) = values else {
                        free.insert(number);
                        continue;
                    };
                    for value in values {
                        if let Some(bits) = named.get_mut(value) {
                            bits.insert(number);
                        } else {
                            named.entry(value.to_owned()).or_default().insert(number);
                        }
                    }
                }
            }
        }
        side
    }

    /// The scopes of which a term covers these values.
    fn of(&self, values: &[Option<&str>; KEYS]) -> Bits {
        let named: [Option<&Bits>; KEYS] =
            std::array::from_fn(|key| values[key].and_then(|value| self.keys[key].1.get(value)));
        let terms = Bits(
            (0..self.owners.len().div_ceil(64))
                .map(|word| {
                    self.keys.iter().zip(named).fold(u64::MAX, |left, ((free, _), named)| {
                        left & (free.word(word) | named.map_or(0, |bits| bits.word(word)))
                    })
                })
                .collect(),
        );
        let mut scopes = Bits::default();
        for term in terms.iter().filter(|term| *term < self.owners.len()) {
            scopes.insert(self.owners[term]);
        }
        scopes
    }
}

/// Many scopes, asked at once.
#[derive(Debug)]
pub struct Cover {
    share: Side,
    agreement: Side,
}

impl Cover {
    /// Of these scopes, which are numbered in their order.
    pub fn new<'a>(scopes: impl Iterator<Item = &'a Scope> + Clone) -> Self {
        Self { share: Side::new(scopes.clone().map(|s| &s.share)), agreement: Side::new(scopes.map(|s| &s.agreement)) }
    }

    /// The numbers of the scopes that cover the file with these axes, ascending.
    pub fn of(&self, axes: &Axes) -> Vec<usize> {
        let values = axes.values();
        let (share, agreement) = (self.share.of(&values), self.agreement.of(&values));
        let both = Bits(share.0.iter().zip(&agreement.0).map(|(a, b)| a & b).collect());
        both.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use liaison_records::codes::{AtLarge, Custody, Jurisdiction, ReleaseType, Status, WarrantState};

    #[test]
    fn the_index_says_what_each_scope_says() {
        let populations: Vec<Population> = [
            r#"{"anyOf":[{"municipalities":["5915022"]}]}"#,
            r#"{"anyOf":[{"jurisdictions":["CA-BC"],"statuses":["Released","Suspended"]},{"atLarge":["Escaped"]}]}"#,
            r#"{"anyOf":[{"releaseTypes":["DayParole"]}]}"#,
            r#"{"anyOf":[{"custody":["Community","Incarcerated","Archived"]}]}"#,
            r#"{"anyOf":[{"custody":[]},{"warrants":["Outstanding"],"municipalities":["5917034","5915022"]}]}"#,
            r#"{"anyOf":[{}]}"#,
            r#"{"anyOf":[]}"#,
        ]
        .iter()
        .map(|json| serde_json::from_str(json).unwrap())
        .collect();
        let mut scopes = Vec::new();
        for share in &populations {
            for agreement in &populations {
                scopes.push(Scope { share: share.clone(), agreement: agreement.clone() });
            }
        }
        let scopes: Vec<Scope> = scopes.iter().cycle().take(scopes.len() * 3).cloned().collect();
        let cover = Cover::new(scopes.iter());
        let mut met = 0;
        for municipality in ["5915022", "5917034", "4711066"] {
            for status in [Status::Released, Status::Revoked] {
                for at_large in [AtLarge::NotAtLarge, AtLarge::Escaped] {
                    for release_type in [None, Some(ReleaseType::DayParole), Some(ReleaseType::FullParole)] {
                        for warrant in [WarrantState::NoWarrant, WarrantState::Outstanding] {
                            let axes = Axes {
                                custody: Custody::Community,
                                status,
                                release_type,
                                at_large,
                                warrant,
                                jurisdiction: Jurisdiction::BritishColumbia,
                                municipality: municipality.to_owned(),
                            };
                            let plain: Vec<usize> =
                                scopes.iter().enumerate().filter(|(_, s)| s.covers(&axes)).map(|(i, _)| i).collect();
                            met += plain.len();
                            assert_eq!(cover.of(&axes), plain, "{axes:?}");
                        }
                    }
                }
            }
        }
        assert!(met > 100);
    }
}
