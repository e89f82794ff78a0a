//! The catalogue of the invented service: 300 titles, the same on every machine and for ever, since
//! they are made of fixed lists of words. No title, person or place is meant.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

/// Titles of each genre.
const OF_GENRE: usize = 25;

/// What a title is about, and how its poster looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Genre {
    /// People and what becomes of them.
    Drama,
    /// To laugh.
    Comedy,
    /// To hold one's breath.
    Thriller,
    /// What may come.
    ScienceFiction,
    /// What never was.
    Fantasy,
    /// What is.
    Documentary,
    /// Two people.
    Romance,
    /// Somebody did it.
    Crime,
    /// For everybody.
    Family,
    /// Far away.
    Adventure,
    /// In the dark.
    Horror,
    /// To hear.
    Music,
}

impl Genre {
    /// All of them, in the order of the page.
    pub const ALL: [Genre; 12] = [
        Genre::Drama,
        Genre::Comedy,
        Genre::Thriller,
        Genre::ScienceFiction,
        Genre::Fantasy,
        Genre::Documentary,
        Genre::Romance,
        Genre::Crime,
        Genre::Family,
        Genre::Adventure,
        Genre::Horror,
        Genre::Music,
    ];

    /// Its two lists of words: a title is one of each. And what its titles are about.
    fn words(
        self,
    ) -> (&'static [&'static str; 10], &'static [&'static str; 10], [&'static str; 5]) {
        match self {
            Genre::Drama => (
                &[
                    "The Last",
                    "A Quiet",
                    "The Unsent",
                    "Our Second",
                    "The Borrowed",
                    "An Honest",
                    "The Long",
                    "A Winter",
                    "The Northern",
                    "The Unfinished",
                ],
                &[
                    "Lighthouse",
                    "Orchard",
                    "Letter",
                    "Inheritance",
                    "Intermission",
                    "Harvest",
                    "Promise",
                    "Ferry",
                    "Portrait",
                    "Homecoming",
                ],
                [
                    "Two sisters sell the house that neither of them ever left.",
                    "A teacher finds the one pupil whom she had given up.",
                    "What a village does not say at a wedding.",
                    "A father learns the trade of his son.",
                    "One year in the life of a harbour that is to close.",
                ],
            ),
            Genre::Comedy => (
                &[
                    "Operation",
                    "Late",
                    "My Neighbour the",
                    "Three Weddings and a",
                    "Nearly",
                    "The Reluctant",
                    "Ask the",
                    "Everybody's",
                    "Bread and",
                    "The Understudy's",
                ],
                &[
                    "Marmalade",
                    "Checkout",
                    "Comet",
                    "Tuba",
                    "Famous",
                    "Mayor",
                    "Goat",
                    "Landlord",
                    "Thunder",
                    "Alibi",
                ],
                [
                    "A hotel for people who missed their train.",
                    "The choir has one voice, and it is hoarse.",
                    "Six flatmates, one bathroom, and a royal visit.",
                    "A small town elects the wrong twin.",
                    "He said he could cook. It was broadcast.",
                ],
            ),
            Genre::Thriller => (
                &[
                    "Northbound",
                    "Three Minutes",
                    "The Parallel",
                    "Junction",
                    "Cold",
                    "The Second",
                    "No Signal",
                    "The Glass",
                    "Dead",
                    "Under",
                ],
                &[
                    "at Midnight",
                    "to Lisbon",
                    "Postman",
                    "Nine",
                    "Ledger",
                    "Passenger",
                    "at Altitude",
                    "Witness",
                    "Reckoning",
                    "Pressure",
                ],
                [
                    "The night train has one carriage more than it should.",
                    "Somebody sends her tomorrow's newspaper.",
                    "A translator understands too much.",
                    "Forty floors, one lift, and the lights go out.",
                    "He remembers everything but last Tuesday.",
                ],
            ),
            Genre::ScienceFiction => (
                &[
                    "The Ninth",
                    "Orbit of",
                    "Beyond",
                    "The Weather",
                    "Silent",
                    "A Thousand",
                    "The Cartographer of",
                    "Zero",
                    "Children of",
                    "The Copper",
                ],
                &[
                    "Understanding",
                    "Glass",
                    "the Heliopause",
                    "Station",
                    "Perihelion",
                    "Suns",
                    "Saturn",
                    "Horizon",
                    "the Relay",
                    "Moon",
                ],
                [
                    "The last crew to answer the first signal.",
                    "On a moon where it rains upwards somebody builds a roof.",
                    "The ship has woken the wrong passenger.",
                    "A robot inherits a farm.",
                    "They sent a probe, and it came back older.",
                ],
            ),
            Genre::Fantasy => (
                &[
                    "The Mechanical",
                    "Salt and",
                    "A Map of",
                    "The Hollow",
                    "The Thorn",
                    "Moonlit",
                    "The Clockmaker's",
                    "Crown of",
                    "The Ash",
                    "The River",
                ],
                &[
                    "Duchess",
                    "Starlight",
                    "Small Storms",
                    "Regatta",
                    "Court",
                    "Freight",
                    "Daughter",
                    "Feathers",
                    "Library",
                    "Witch",
                ],
                [
                    "A kingdom where every door leads one day back.",
                    "The dragon is a tenant, and the rent is due.",
                    "She can read maps that are not drawn yet.",
                    "The sea gives back what it took, all at once.",
                    "A thief steals the shadow of a king.",
                ],
            ),
            Genre::Documentary => (
                &[
                    "Robots of",
                    "A Field Guide to",
                    "The Secret Life of",
                    "Kitchens of",
                    "Above",
                    "The Business of",
                    "Inside",
                    "A Short History of",
                    "The Last Keepers of",
                    "Building",
                ],
                &[
                    "Rural France",
                    "Fog",
                    "Bridges",
                    "the Night Shift",
                    "the Tree Line",
                    "Ice",
                    "the Seed Vault",
                    "Silence",
                    "the Bells",
                    "a Cathedral",
                ],
                [
                    "Who mends the cables under the sea.",
                    "One field, four seasons, no words.",
                    "The people who count birds, and why.",
                    "How a city learns to be dark.",
                    "Forty years of letters to a weather office.",
                ],
            ),
            Genre::Romance => (
                &[
                    "A Violin for",
                    "Seven Bridges to",
                    "Ask Me in",
                    "The Baker of",
                    "Letters from",
                    "One Summer in",
                    "Dancing with",
                    "The Florist and",
                    "Postcards to",
                    "Waltz for",
                ],
                &[
                    "Ada",
                    "August",
                    "Port Alder",
                    "Marguerite",
                    "the Pilot",
                    "Elena",
                    "Tuesday",
                    "the Cellist",
                    "Home",
                    "Two",
                ],
                [
                    "They share a desk and have never met.",
                    "She restores letters; one is to her.",
                    "The worst first date, every year again.",
                    "A pianist and the woman who tunes the piano.",
                    "He waits at the wrong bridge, with the right flowers.",
                ],
            ),
            Genre::Crime => (
                &[
                    "Detective",
                    "The Beekeeper's",
                    "Smoke over",
                    "The Tidewater",
                    "Murder at",
                    "The Velvet",
                    "Inspector",
                    "A Debt in",
                    "The Harbour",
                    "Nobody Saw",
                ],
                &[
                    "Umbra",
                    "Confession",
                    "Silverlake",
                    "Files",
                    "the Opera",
                    "Forger",
                    "Quill",
                    "Marble",
                    "Ledger",
                    "the Milkman",
                ],
                [
                    "An inspector with a week to retirement, for the ninth year.",
                    "The painting is genuine; the museum is not.",
                    "Everybody in the village has confessed.",
                    "A locksmith's apprentice opens one door too many.",
                    "The judge recognises the handwriting.",
                ],
            ),
            Genre::Family => (
                &[
                    "Grandmaster",
                    "The Paper",
                    "Captain",
                    "The Great",
                    "Mister",
                    "The Secret",
                    "Pip and the",
                    "Riverboat",
                    "The Littlest",
                    "Hugo's",
                ],
                &[
                    "Gloria",
                    "Tigers Club",
                    "Teapot",
                    "Pancake",
                    "Snowplough",
                    "Treehouse",
                    "Giant Kite",
                    "Radio",
                    "Locomotive",
                    "Zoo",
                ],
                [
                    "A girl, a goose, and a very long ladder.",
                    "The school bus takes the other road.",
                    "Grandfather's shed has a launch button.",
                    "Four friends save the oldest cinema in town.",
                    "An elephant who is afraid of peanuts.",
                ],
            ),
            Genre::Adventure => (
                &[
                    "Copper Canyon",
                    "The Snow Leopard's",
                    "Beyond the",
                    "The Compass of",
                    "Lost in",
                    "Riders of",
                    "The Emerald",
                    "Across",
                    "Voyage to",
                    "The Last",
                ],
                &[
                    "Rescue",
                    "Shadow",
                    "Blue Pass",
                    "Captain Vey",
                    "the Salt Desert",
                    "the Steppe",
                    "Expedition",
                    "the Roof of the World",
                    "Far Island",
                    "Caravan",
                ],
                [
                    "The map ends where the story begins.",
                    "Two rivals share one rope.",
                    "A cook becomes the captain of a mutiny.",
                    "Nine days to the pass, and eight of bread.",
                    "She flies mail where there are no roads.",
                ],
            ),
            Genre::Horror => (
                &[
                    "The House on",
                    "What Waits in",
                    "The Ninth",
                    "Don't Answer",
                    "The Pale",
                    "Below",
                    "Whispers in",
                    "The Cellar of",
                    "The Sleepless",
                    "After",
                ],
                &[
                    "Marrow Lane",
                    "the Well",
                    "Tenant",
                    "the Bell",
                    "Choir",
                    "the Chapel",
                    "the Attic",
                    "Doctor Voss",
                    "Children",
                    "Curfew",
                ],
                [
                    "The lullaby has a fourth verse.",
                    "Every photograph shows one guest more.",
                    "The fog knows their names.",
                    "It only moves when it is described.",
                    "They moved in. Somebody had not moved out.",
                ],
            ),
            Genre::Music => (
                &[
                    "Midnight at",
                    "Down in",
                    "Brass on",
                    "Live from",
                    "The Ballad of",
                    "Twelve Bars of",
                    "Encore for",
                    "The Sound of",
                    "Strings in",
                    "One Night at",
                ],
                &[
                    "the Old Cinema",
                    "the Rain Quarter",
                    "the Boulevard",
                    "the Granary",
                    "Rook Lane",
                    "the Blue Hour",
                    "the Broken Piano",
                    "the Harbour",
                    "Steel Street",
                    "the Palais",
                ],
                [
                    "A band that never agreed on its name.",
                    "The record that was pressed once.",
                    "An orchestra of beginners, one year on.",
                    "Four strings, forty cities.",
                    "The last night of a small club.",
                ],
            ),
        }
    }
}

impl fmt::Display for Genre {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Genre::Drama => "Drama",
            Genre::Comedy => "Comedy",
            Genre::Thriller => "Thriller",
            Genre::ScienceFiction => "Science fiction",
            Genre::Fantasy => "Fantasy",
            Genre::Documentary => "Documentary",
            Genre::Romance => "Romance",
            Genre::Crime => "Crime",
            Genre::Family => "Family",
            Genre::Adventure => "Adventure",
            Genre::Horror => "Horror",
            Genre::Music => "Music",
        })
    }
}

/// A film, or a show of several seasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Length {
    /// A film of so many minutes.
    Film(u32),
    /// A show; for each season its number of episodes.
    Show(Vec<u32>),
}

/// One title.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Title {
    /// The video id of its events: lower-case letters and minus.
    pub id: String,
    /// As people read it.
    pub name: String,
    /// What it is about.
    pub genre: Genre,
    /// In one sentence.
    pub line: &'static str,
    /// When it came out.
    pub year: u32,
    /// How long it is.
    pub length: Length,
    /// Its place in the catalogue: what its poster is drawn from.
    pub number: u32,
}

impl Title {
    /// `2 seasons`, `1 h 42 min`.
    pub fn length_words(&self) -> String {
        match &self.length {
            Length::Film(minutes) => format!("{} h {:02} min", minutes / 60, minutes % 60),
            Length::Show(seasons) if seasons.len() == 1 => "1 season".to_owned(),
            Length::Show(seasons) => format!("{} seasons", seasons.len()),
        }
    }
}

/// A number from 0 up to `below`, the same for ever: SplitMix64 (Steele, Lea, Flood, *Fast Splittable
/// Pseudorandom Number Generators*, 2014) of a title's place and what is asked.
pub(super) fn chance(number: u32, what: u32, below: u32) -> u32 {
    let mut z = (u64::from(number) << 32 | u64::from(what)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ z >> 31) % u64::from(below)) as u32
}

static TITLES: LazyLock<Vec<Title>> = LazyLock::new(|| {
    let of_genre = |genre: Genre| (0..OF_GENRE).map(move |place| (genre, place));
    let all = Genre::ALL.into_iter().flat_map(of_genre);
    all.enumerate().map(|(number, (genre, place))| title(number as u32, genre, place)).collect()
});

static BY_ID: LazyLock<HashMap<&'static str, &'static Title>> =
    LazyLock::new(|| TITLES.iter().map(|title| (title.id.as_str(), title)).collect());

/// All titles.
pub fn titles() -> &'static [Title] {
    &TITLES
}

/// The title with an id.
pub fn title_of(id: &str) -> Option<&'static Title> {
    BY_ID.get(id).copied()
}

fn title(number: u32, genre: Genre, place: usize) -> Title {
    let (heads, tails, lines) = genre.words();
    // A step that has no factor in common with 100: no pair comes twice.
    let pair = (place * 37 + 11) % 100;
    let name = format!("{} {}", heads[pair / 10], tails[(pair + place) % 10]);
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let letters = name.replace('\'', "");
    let words: Vec<String> =
        letters.split(' ').map(|word| word.chars().map(plain).collect()).collect();
    let episodes = |season: u32| 6 + chance(number, 10 + season, 7);
    let length = match chance(number, 0, 5) {
        0 | 1 => Length::Show((0..=chance(number, 1, 4)).map(episodes).collect()),
        _ => Length::Film(78 + chance(number, 2, 80)),
    };
    Title {
        id: words.join("-"),
        name,
        genre,
        line: lines[chance(number, 3, 5) as usize],
        year: 2026 - chance(number, 4, 31),
        length,
        number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_three_hundred_and_each_is_another() {
        assert_eq!(titles().len(), 300);
        let ids: BTreeSet<&str> = titles().iter().map(|title| title.id.as_str()).collect();
        let names: BTreeSet<&str> = titles().iter().map(|title| title.name.as_str()).collect();
        assert_eq!((ids.len(), names.len()), (300, 300));
        let shows = titles().iter().filter(|t| matches!(t.length, Length::Show(_))).count();
        assert!((80..160).contains(&shows), "{shows}");
        for title in titles() {
            let plain = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(title.id.chars().all(plain), "{}", title.id);
            assert_eq!(title_of(&title.id), Some(title));
        }
        assert_eq!(title_of("nothing"), None);
    }

    /// Ids are in logs, stores and links.
    #[test]
    fn ids_never_change() {
        let some: Vec<&str> = titles().iter().step_by(60).map(|title| title.id.as_str()).collect();
        assert_eq!(
            some,
            [
                "a-quiet-orchard",
                "dead-to-lisbon",
                "moonlit-starlight",
                "nobody-saw-confession",
                "the-emerald-shadow",
            ]
        );
    }
}
