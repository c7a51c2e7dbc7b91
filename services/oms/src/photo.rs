//! A photograph of nobody: a drawn face, distinct for each file, with the date and the word SYNTHETIC across it, so that no
//! viewer can take it for a person. Pure; the noise brings it to the size of a real one (about 20 KB).

use jiff::civil::Date;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use rand::{Rng, RngExt as _};

use crate::error::Error;

/// Width in pixels.
pub const WIDTH: u16 = 240;
/// Height in pixels.
pub const HEIGHT: u16 = 300;

const W: i32 = WIDTH as i32;
const H: i32 = HEIGHT as i32;
/// JPEG quality, and half the noise's range: together they give 15 to 25 KB.
const QUALITY: u8 = 80;
const NOISE: i32 = 14;

type Colour = [i32; 3];

struct Canvas {
    pixels: Vec<Colour>,
}

impl Canvas {
    fn set(&mut self, x: i32, y: i32, colour: Colour) {
        if (0..W).contains(&x)
            && (0..H).contains(&y)
            && let Some(pixel) = usize::try_from(y * W + x).ok().and_then(|i| self.pixels.get_mut(i))
        {
            *pixel = colour;
        }
    }

    fn ellipse(&mut self, cx: i32, cy: i32, rx: i32, ry: i32, colour: Colour) {
        for y in (cy - ry)..=(cy + ry) {
            // The half width of this line of the ellipse.
            let mut half = rx;
            while half > 0 && half * half * ry * ry + (y - cy) * (y - cy) * rx * rx > rx * rx * ry * ry {
                half -= 1;
            }
            for x in (cx - half)..=(cx + half) {
                self.set(x, y, colour);
            }
        }
    }

    fn rectangle(&mut self, x: i32, y: i32, w: i32, h: i32, colour: Colour) {
        for yy in y..y + h {
            for xx in x..x + w {
                self.set(xx, yy, colour);
            }
        }
    }

    fn text(&mut self, x: i32, y: i32, scale: i32, text: &str, colour: Colour) {
        let mut left = x;
        for c in text.chars() {
            for (row, bits) in (0..).zip(glyph(c)) {
                for column in 0..5 {
                    if bits & (16 >> column) != 0 {
                        self.rectangle(left + column * scale, y + row * scale, scale, scale, colour);
                    }
                }
            }
            left += 6 * scale;
        }
    }
}

/// Draws and encodes the photograph: whoever holds the same generator state gets the same bytes.
pub fn photograph(rng: &mut impl Rng, taken_on: Date, french: bool) -> Result<Vec<u8>, Error> {
    let canvas = draw(rng, taken_on, french);
    let mut rgb = Vec::with_capacity(canvas.pixels.len() * 3);
    let mut noise = [0u8; 240];
    for line in canvas.pixels.chunks(W.unsigned_abs() as usize) {
        rng.fill_bytes(&mut noise);
        for (pixel, n) in line.iter().zip(&noise) {
            let n = i32::from(*n) * (2 * NOISE) / 255 - NOISE;
            for channel in pixel {
                #[expect(clippy::cast_sign_loss, reason = "clamped")]
                rgb.push((channel + n).clamp(0, 255) as u8);
            }
        }
    }
    let mut jpeg = Vec::with_capacity(24 * 1024);
    let mut encoder = Encoder::new(&mut jpeg, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode(&rgb, WIDTH, HEIGHT, ColorType::Rgb).map_err(|e| Error::Photograph(e.to_string()))?;
    Ok(jpeg)
}

fn draw(rng: &mut impl Rng, taken_on: Date, french: bool) -> Canvas {
    let mut near = |base: i32, spread: i32| base + rng.random_range(-spread..=spread);
    let grey = near(165, 25);
    let tone = near(150, 75);
    let skin = [tone + 30, tone, tone - 25 + near(0, 10)];
    let shade = [skin[0] - 30, skin[1] - 30, skin[2] - 30];
    let hair = [near(70, 50), near(55, 40), near(45, 30)];
    let shirt = [near(110, 70), near(110, 70), near(120, 70)];
    let mut canvas = Canvas {
        pixels: (0..H)
            .flat_map(|y| (0..W).map(move |x| [grey - y / 8 - x / 16, grey - y / 9, grey + 6 - y / 10]))
            .collect(),
    };
    // Lines that measure height, as on a wall.
    for line in 0..6 {
        canvas.rectangle(0, 18 + line * 38, W, 1, [grey - 45; 3]);
    }
    let (cx, cy) = (near(120, 6), near(125, 6));
    let (rx, ry) = (near(50, 9), near(66, 9));
    canvas.ellipse(cx, 300, near(98, 10), near(88, 10), shirt);
    canvas.rectangle(cx - rx / 2, cy + ry / 2, rx, 75, shade);
    let crown = near(10, 6);
    canvas.ellipse(cx, cy - crown, rx + near(7, 4), ry + near(4, 4), hair);
    canvas.ellipse(cx, cy + near(8, 4), rx, ry - 4, skin);
    for side in [-1, 1] {
        canvas.ellipse(cx + side * rx, cy + 6, 7, near(13, 3), shade);
    }
    let eye = near(20, 4);
    let iris = [near(70, 40), near(80, 40), near(80, 50)];
    let (wide, brow) = (near(9, 2), near(14, 3));
    for side in [-1, 1] {
        canvas.ellipse(cx + side * eye, cy - 4, wide, 5, [235, 235, 230]);
        canvas.ellipse(cx + side * eye, cy - 4, 4, 4, iris);
        canvas.ellipse(cx + side * eye, cy - 4 - brow, wide + 4, 2, hair);
    }
    let (nose, mouth) = (near(7, 2), near(19, 5));
    canvas.ellipse(cx, cy + 18, nose, near(11, 3), shade);
    canvas.ellipse(cx, cy + 41, mouth, near(4, 2), [skin[0] - 20, skin[1] - 60, skin[2] - 50]);
    if near(5, 5) < 3 {
        canvas.ellipse(cx, cy + 60, near(26, 6), near(11, 4), hair);
    }
    let word = if french { "SYNTHÉTIQUE" } else { "SYNTHETIC" };
    canvas.rectangle(0, 252, W, 48, [20, 20, 24]);
    let left = |text: &str, scale: i32| (W - i32::try_from(text.chars().count()).unwrap_or(0) * 6 * scale) / 2;
    let date = taken_on.to_string();
    canvas.text(left(word, 3), 256, 3, word, [250, 220, 60]);
    canvas.text(left(&date, 2), 281, 2, &date, [240, 240, 240]);
    canvas
}

/// Seven lines of five pixels.
fn glyph(c: char) -> [u8; 7] {
    match c {
        '0' => [14, 17, 19, 21, 25, 17, 14],
        '1' => [4, 12, 4, 4, 4, 4, 14],
        '2' => [14, 17, 1, 6, 8, 16, 31],
        '3' => [14, 17, 1, 6, 1, 17, 14],
        '4' => [2, 6, 10, 18, 31, 2, 2],
        '5' => [31, 16, 30, 1, 1, 17, 14],
        '6' => [6, 8, 16, 30, 17, 17, 14],
        '7' => [31, 1, 2, 4, 8, 8, 8],
        '8' => [14, 17, 17, 14, 17, 17, 14],
        '9' => [14, 17, 17, 15, 1, 2, 12],
        '-' => [0, 0, 0, 14, 0, 0, 0],
        'S' => [15, 16, 16, 14, 1, 1, 30],
        'Y' => [17, 17, 10, 4, 4, 4, 4],
        'N' => [17, 25, 21, 19, 17, 17, 17],
        'T' => [31, 4, 4, 4, 4, 4, 4],
        'H' => [17, 17, 17, 31, 17, 17, 17],
        'E' => [31, 16, 16, 30, 16, 16, 31],
        'É' => [2, 4, 31, 16, 30, 16, 31],
        'I' => [14, 4, 4, 4, 4, 4, 14],
        'C' => [14, 17, 16, 16, 16, 17, 14],
        'Q' => [14, 17, 17, 17, 21, 18, 13],
        'U' => [17, 17, 17, 17, 17, 17, 14],
        _ => [0; 7],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn photographs_are_distinct_jpegs_of_about_20_kb() {
        let mut seen = BTreeSet::new();
        let mut total = 0;
        for seed in 0..60 {
            let jpeg = photograph(&mut ChaCha8Rng::seed_from_u64(seed), jiff::civil::date(2024, 5, 17), seed % 2 == 0)
                .unwrap();
            assert_eq!(jpeg[..2], [0xff, 0xd8], "SOI");
            assert_eq!(jpeg[jpeg.len() - 2..], [0xff, 0xd9], "EOI");
            assert!((12_000..30_000).contains(&jpeg.len()), "{} bytes", jpeg.len());
            total += jpeg.len();
            seen.insert(jpeg);
        }
        assert_eq!(seen.len(), 60);
        assert!((17_000..23_000).contains(&(total / 60)), "{} bytes on average", total / 60);
    }

    #[test]
    fn every_letter_that_is_drawn_has_a_glyph() {
        for c in "SYNTHETIC SYNTHÉTIQUE 0123456789-".chars().filter(|c| *c != ' ') {
            assert_ne!(glyph(c), [0; 7], "{c}");
        }
    }
}
