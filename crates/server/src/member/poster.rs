//! Posters, drawn by code: a picture of its genre, in colours of its own, with the title on it.

use super::catalogue::{Genre, Title, chance};
use std::fmt::Write;

/// Width and height, in the units of the drawing.
const WIDTH: u32 = 200;
const HEIGHT: u32 = 300;

/// Characters on a line of a title, about.
const LINE: usize = 12;

/// What a poster is drawn with.
struct Drawing {
    svg: String,
    number: u32,
    asked: u32,
    hue: u32,
}

/// The poster of a title, as SVG, about 2 KB.
pub(super) fn svg(title: &Title) -> String {
    let mut drawing = Drawing {
        svg: String::with_capacity(2048),
        number: title.number,
        asked: 100,
        hue: hue(title),
    };
    drawing.begin(&title.name);
    match title.genre {
        Genre::Drama | Genre::Romance => drawing.sun_over_hills(),
        Genre::Comedy | Genre::Family => drawing.confetti(),
        Genre::Thriller | Genre::Crime => drawing.city(),
        Genre::ScienceFiction => drawing.planets(),
        Genre::Fantasy | Genre::Adventure => drawing.mountains(),
        Genre::Documentary => drawing.contours(),
        Genre::Horror => drawing.trees(),
        Genre::Music => drawing.waves(),
    }
    drawing.lettering(title);
    drawing.svg.push_str("</svg>");
    drawing.svg
}

/// Genres have their colours, titles theirs beside.
fn hue(title: &Title) -> u32 {
    let of_genre = match title.genre {
        Genre::Drama => 28,
        Genre::Comedy => 48,
        Genre::Thriller => 205,
        Genre::ScienceFiction => 258,
        Genre::Fantasy => 286,
        Genre::Documentary => 160,
        Genre::Romance => 340,
        Genre::Crime => 218,
        Genre::Family => 188,
        Genre::Adventure => 95,
        Genre::Horror => 0,
        Genre::Music => 312,
    };
    (of_genre + chance(title.number, 99, 40) + 340) % 360
}

impl Drawing {
    fn chance(&mut self, below: u32) -> u32 {
        self.asked += 1;
        chance(self.number, self.asked, below)
    }

    fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.chance(high - low + 1)
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        self.svg.write_fmt(element).expect("a text takes everything");
    }

    fn begin(&mut self, name: &str) {
        let (hue, other) = (self.hue, (self.hue + 300 + self.chance(50)) % 360);
        let (top, bottom) = (self.between(14, 26), self.between(38, 52));
        self.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\
             <title>{}</title><defs><linearGradient id=\"s\" x2=\"0\" y2=\"1\">\
             <stop stop-color=\"hsl({other} 55% {top}%)\"/>\
             <stop offset=\"1\" stop-color=\"hsl({hue} 62% {bottom}%)\"/></linearGradient>\
             <linearGradient id=\"t\" x2=\"0\" y2=\"1\"><stop stop-opacity=\"0\"/>\
             <stop offset=\"1\" stop-opacity=\".72\"/></linearGradient></defs>\
             <path fill=\"url(#s)\" d=\"M0 0h{WIDTH}v{HEIGHT}H0z\"/>",
            escaped(name)
        ));
    }

    fn sun_over_hills(&mut self) {
        let (x, y, r) = (self.between(50, 150), self.between(80, 130), self.between(28, 52));
        let hue = self.hue;
        self.put(format_args!(
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" fill=\"hsl({} 90% 74%)\"/>\
             <circle cx=\"{x}\" cy=\"{y}\" r=\"{}\" fill=\"hsl({} 90% 74% / .16)\"/>",
            (hue + 20) % 360,
            r + 16,
            (hue + 20) % 360
        ));
        for layer in 0..3 {
            let base = 150 + 34 * layer;
            let (a, b, c) = (self.between(0, 44), self.between(0, 44), self.between(0, 44));
            let light = 32 - 9 * layer;
            self.put(format_args!(
                "<path fill=\"hsl({hue} 48% {light}%)\" d=\"M0 {}C50 {} 90 {} 130 {}S190 {} 200 {}V300H0z\"/>",
                base + a, base - 24 + b, base + 20, base - c / 2, base + 8, base - 10
            ));
        }
    }

    fn confetti(&mut self) {
        for _ in 0..16 {
            let (x, y, r) = (self.chance(WIDTH), self.chance(230), self.between(6, 26));
            let (hue, light) = ((self.hue + self.chance(200)) % 360, self.between(52, 76));
            let turn = self.chance(90);
            let shape = match self.chance(3) {
                0 => format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\""),
                1 => format!(
                    "<path transform=\"rotate({turn} {x} {y})\" d=\"M{x} {y}h{}v{}h-{}z\"",
                    r * 2,
                    r / 2 + 3,
                    r * 2
                ),
                _ => format!(
                    "<path transform=\"rotate({turn} {x} {y})\" d=\"M{x} {y}l{r} {}h-{}z\"",
                    r * 2,
                    r * 2
                ),
            };
            self.put(format_args!("{shape} fill=\"hsl({hue} 78% {light}%)\"/>"));
        }
    }

    fn city(&mut self) {
        let (x, y) = (self.between(120, 170), self.between(40, 70));
        self.put(format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"18\" fill=\"hsl(50 40% 86%)\"/>"));
        let hue = self.hue;
        for layer in 0..2 {
            let (mut left, light) = (0, 20 - 11 * layer);
            while left < WIDTH {
                let (width, top) = (self.between(18, 38), self.between(84, 170) + 34 * layer);
                self.put(format_args!(
                    "<path fill=\"hsl({hue} 34% {light}%)\" d=\"M{left} {top}h{width}V300H{left}z\"/>"
                ));
                for _ in 0..self.chance(5) * layer {
                    let (a, b) = (left + 4 + self.chance(width - 8), top + 8 + self.chance(80));
                    self.put(format_args!(
                        "<path fill=\"hsl(46 95% 66%)\" d=\"M{a} {b}h4v6h-4z\"/>"
                    ));
                }
                left += width + 2;
            }
        }
    }

    fn planets(&mut self) {
        for _ in 0..34 {
            let (x, y, r) = (self.chance(WIDTH), self.chance(HEIGHT), self.between(4, 12));
            self.put(format_args!(
                "<circle cx=\"{x}\" cy=\"{y}\" r=\"{}.{}\" fill=\"#fff\"/>",
                r / 10,
                r % 10
            ));
        }
        let (x, y, r) = (self.between(60, 140), self.between(90, 150), self.between(40, 64));
        let hue = self.hue;
        let tilt = self.between(0, 50);
        self.put(format_args!(
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" fill=\"hsl({} 62% 58%)\"/>\
             <path d=\"M{x} {} a{r} {r} 0 0 1 0 {}a{} {r} 0 0 0 0 -{}\" fill=\"hsl({hue} 60% 18% / .55)\"/>\
             <ellipse cx=\"{x}\" cy=\"{y}\" rx=\"{}\" ry=\"{}\" fill=\"none\" stroke=\"hsl({} 80% 82%)\" \
             stroke-width=\"3\" transform=\"rotate(-{tilt} {x} {y})\"/>",
            (hue + 60) % 360, y - r, 2 * r, r / 2, 2 * r, r + 34, r / 4, (hue + 40) % 360
        ));
    }

    fn mountains(&mut self) {
        let hue = self.hue;
        let (x, y) = (self.between(30, 170), self.between(40, 80));
        self.put(format_args!(
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"22\" fill=\"hsl({} 88% 84%)\"/>",
            (hue + 40) % 360
        ));
        for layer in 0..3 {
            let (peak, top) = (self.between(30, 170), self.between(70, 120) + 44 * layer);
            let light = 44 - 14 * layer;
            self.put(format_args!(
                "<path fill=\"hsl({hue} 38% {light}%)\" d=\"M-60 300L{peak} {top}L260 300z\"/>\
                 <path fill=\"hsl({hue} 30% {}% / .7)\" d=\"M{peak} {top}l-14 22 9-4 6 8 8-9 8 5z\"/>",
                light + 38
            ));
        }
    }

    fn contours(&mut self) {
        let (x, y) = (self.between(40, 160), self.between(60, 160));
        let (hue, squash) = (self.hue, self.between(60, 100));
        for ring in 1..13 {
            let (rx, ry) = (ring * 17, ring * 17 * squash / 100);
            let turn = self.chance(14);
            self.put(format_args!(
                "<ellipse cx=\"{x}\" cy=\"{y}\" rx=\"{rx}\" ry=\"{ry}\" fill=\"none\" \
                 stroke=\"hsl({hue} 60% {}%)\" stroke-width=\"2.4\" transform=\"rotate({turn} {x} {y})\"/>",
                78 - ring * 3
            ));
        }
    }

    fn trees(&mut self) {
        let (x, y) = (self.between(50, 150), self.between(60, 100));
        let hue = self.hue;
        self.put(format_args!(
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"34\" fill=\"hsl({hue} 72% 62%)\"/>"
        ));
        for layer in 0..2 {
            let light = 14 - 8 * layer;
            for _ in 0..9 {
                let (left, top, wide) =
                    (self.chance(WIDTH), self.between(60, 150) + 50 * layer, self.between(3, 7));
                let (lean, branch) = (self.between(0, 20), self.between(10, 34));
                self.put(format_args!(
                    "<path fill=\"none\" stroke=\"hsl({hue} 30% {light}%)\" stroke-width=\"{wide}\" \
                     d=\"M{left} 300Q{} 200 {left} {top}M{left} {}l{branch} -{branch}M{left} {}l-{branch} -26\"/>",
                    left + lean, top + 60, top + 84
                ));
            }
        }
    }

    fn waves(&mut self) {
        let mut x = 14;
        while x < 190 {
            let tall = self.between(16, 96);
            let hue = (self.hue + x) % 360;
            self.put(format_args!(
                "<path stroke=\"hsl({hue} 82% 70%)\" stroke-width=\"7\" stroke-linecap=\"round\" \
                 d=\"M{x} {}v{}\"/>",
                136 - tall,
                2 * tall
            ));
            x += 13;
        }
    }

    /// The title on a dark foot, in lines that fit.
    fn lettering(&mut self, title: &Title) {
        self.put(format_args!("<path fill=\"url(#t)\" d=\"M0 150h{WIDTH}v150H0z\"/>"));
        let lines = lines(&title.name);
        let size = if lines.len() > 3 { 22 } else { 26 };
        let mut y = 282 - (lines.len() as u32 - 1) * size;
        let serif =
            matches!(title.genre, Genre::Drama | Genre::Romance | Genre::Fantasy | Genre::Horror);
        let family = if serif { "Georgia,'Times New Roman',serif" } else { "system-ui,sans-serif" };
        self.put(format_args!(
            "<g fill=\"#fff\" font-family=\"{family}\" font-weight=\"700\" font-size=\"{}\">",
            size - 3
        ));
        for line in lines {
            self.put(format_args!("<text x=\"14\" y=\"{y}\">{}</text>", escaped(&line)));
            y += size;
        }
        self.svg.push_str("</g>");
    }
}

fn lines(name: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in name.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= LINE => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::titles;
    use super::*;

    #[test]
    fn every_title_has_a_small_poster_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for title in titles() {
            let drawn = svg(title);
            assert!(drawn.len() < 6_000, "{}: {} bytes", title.id, drawn.len());
            assert!(!drawn.contains("style="), "the policy allows no style in a document");
            assert_eq!(drawn, svg(title), "the same each time");
            assert!(seen.insert(drawn), "{} looks like another one", title.id);
        }
    }

    #[test]
    fn long_titles_are_broken_between_words() {
        assert_eq!(
            lines("The Last Keepers of a Cathedral"),
            ["The Last", "Keepers of a", "Cathedral"]
        );
    }
}
