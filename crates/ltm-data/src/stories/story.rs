//! The stories' words and sentences: data only. The subject of a story is drawn once and comes back many words
//! later, out of reach of a short attention window; the wording varies from sentence to sentence.

use super::grammar::Grammar;

/// Names, with the pronoun of a hero who has it.
const NAMES: &str = "tom he, anna she, ben he, clara she, david he, emma she, felix he, \
    grace she, henry he, ivy she, jack he, kate she, leo he, mia she, \
    noah he, olive she, peter he, rosa she, sam he, tess she";

/// Things, tool, what is done, who does it for a living, then the places where it is done.
const TOPICS: [(&str, [&str; 3]); 8] = [
    ("cakes spoon baked baker", ["kitchen", "bakery", "mill"]),
    ("fish net rowed sailor", ["river", "harbor", "lake"]),
    ("pumpkins spade dug farmer", ["garden", "field", "farm"]),
    ("songs drum played singer", ["hall", "square", "theater"]),
    ("pictures brush painted artist", ["studio", "museum", "school"]),
    ("chairs hammer built carpenter", ["workshop", "barn", "yard"]),
    ("stars telescope watched teacher", ["tower", "hill", "roof"]),
    ("books lamp read writer", ["library", "attic", "shop"]),
];

/// Counted from zero.
const NUMBERS: &str = "zero one two three four five six seven eight nine ten eleven twelve thirteen \
    fourteen fifteen sixteen seventeen eighteen";

const WEATHER: &str = "rainy rain wet, snowy snow white, sunny sun warm, windy wind wild, \
    foggy fog grey, stormy storm afraid";

const MOOD: &str = "happy gladly laughed, sad slowly sighed, brave boldly cheered, \
    sleepy quietly yawned, curious eagerly wondered, proud loudly sang";

const TEXT: &str = "
    [ [one|on a] $weather [morning|evening|day] , $cast.hero [went :2|walked|ran] to the $scene.place
        with a $colour $animal .
    | it was a $weather [morning|evening|day] at the $scene.place , and $cast.hero
        [came|arrived] with a $colour $animal . ]

    [ $cast.friend the $scene.person was [there :2|waiting] , [feeling|looking] $mood .
    | there $cast.he met $cast.friend , a $mood [young|old] $scene.person . ]

    [ $cast.hero had $sum.a $scene.things and $cast.friend had $sum.b .
    | $cast.friend [brought|found] $sum.b $scene.things , and $cast.hero [brought|found] $sum.a . ]

    [ [all day|for hours] they $scene.did [with|beside] the [big|little :2] $scene.tool , and the
        $weather.noun [made|kept] them $weather.feel .
    | the $weather.noun [made|kept] them $weather.feel , but they $scene.did $mood.way . ]

    [ then the $colour $animal [hid|took] the $scene.tool .
    | [suddenly|soon] the $animal [ran|jumped] [behind|under|into] the [table|door|tree|wall] . ]

    [ $cast.friend gave $cast.him [some|a little] $treat .
    | let us [share|eat] the $treat , said $cast.friend .
    | :2 ]

    [ $sum.a plus $sum.b is $sum.total , said $cast.hero .
    | now there were $sum.total $scene.things [in|near] the $scene.place . ]

    [ $cast.hero and $cast.friend [ate|shared] the $treat and $mood.end .
    | $cast.hero [thanked|left] $cast.friend , and the $animal [slept|waited] in the $weather.noun . ]
";

/// The grammar of all stories.
pub(super) fn grammar() -> Grammar {
    let mut cast = Vec::new();
    let names: Vec<&str> = NAMES.split(", ").collect();
    for hero in &names {
        for friend in names.iter().filter(|&friend| friend != hero) {
            let friend = friend.split_whitespace().next().expect("a name comes first");
            let object = if hero.ends_with("she") { "her" } else { "him" };
            cast.push(format!("{hero} {object} {friend}"));
        }
    }
    let scene =
        TOPICS.iter().flat_map(|(words, places)| places.map(|place| format!("{words} {place}")));
    let numbers: Vec<&str> = NUMBERS.split_whitespace().collect();
    let sum = (2..=9)
        .flat_map(|a| (2..=9).map(move |b| (a, b)))
        .map(|(a, b)| [a, b, a + b].map(|n| numbers[n]).join(" "));
    let lines = |lines: &str| lines.split(',').map(String::from).collect();
    let variables = [
        ("cast", "hero he him friend", cast),
        ("scene", "things tool did person place", scene.collect()),
        ("sum", "a b total", sum.collect()),
        ("weather", "kind noun feel", lines(WEATHER)),
        ("mood", "kind way end", lines(MOOD)),
        ("colour", "kind", lines("red, blue, green, yellow, black, white, brown, grey")),
        ("animal", "kind", lines("dog, cat, goat, duck, mouse, horse, fox, rabbit")),
        ("treat", "kind", lines("honey, bread, soup, cheese, milk, jam, tea, rice")),
    ];
    Grammar::new(&variables, TEXT)
}
