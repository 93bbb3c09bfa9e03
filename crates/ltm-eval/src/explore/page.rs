//! The explorer as a page: one HTML file with its style, its script and a document, which reads nothing from elsewhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Document;
use crate::{Error, Result};

const STYLE: &str = include_str!("page/explorer.css");
const SCRIPT: &str = include_str!("page/explorer.js");

/// What the page may do: run its own script, and ask its own server.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'";

/// The page of a document. With `live`, the path of a server's fits such as `/v1/explorations`, it lets a person type a text:
/// it then posts `{"model", "text", "seed"}` there for an [`Exploration`](super::Exploration), and to `/decode` under it
/// `{"model", "z", "text"?}` for `{"text", "nll"?}`.
///
/// # Errors
/// [`Error::Field`] for a document without a text.
pub fn page(document: &Document, live: Option<&str>) -> Result<String> {
    if document.texts.is_empty() {
        return Err(Error::field("texts", "at least one", 0));
    }
    let json = serde_json::to_string(document)
        .map_err(|error| Error::field("document", "numbers that JSON has", error))?;
    // No text can end the element that holds it.
    let json = json.replace('<', "\\u003c");
    let page = html! {
        (DOCTYPE)
        html lang="en" data-live=[live] {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (document.about.name) ": latents" }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                (body(document))
                script type="application/json" id="data" { (PreEscaped(json)) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    Ok(page.into_string())
}

fn body(document: &Document) -> Markup {
    let about = &document.about;
    let latents = about.n_layers * about.latents_per_layer;
    html! {
        header {
            h1 { "The latents of " (about.name) }
            p {
                "This model writes a text word by word, and beside the words it has " (latents) " "
                em { "latents" } ": vectors of " (about.dim) " numbers that stand for the whole text. Before it scores a text it "
                "searches, in a few steps, for the latents under which that text is likely. Here you can watch the search, see what "
                "each latent is worth, change one, and read what the model then writes."
            }
            p.quiet {
                (thousands(about.parameters)) " parameters; a layer reads the last " (about.window)
                " tokens, and what lies beyond the reach of all layers comes to a word through the latents or not at all."
            }
        }
        div id="ledger" aria-label="What the latents cost and save, in nats" {}
        main {
            section.wide {
                h2 { "A text" }
                form id="fit" hidden {
                    textarea id="own-text" aria-label="A text of your own" placeholder="A text of your own" {
                        (document.texts[0].text)
                    }
                    button { "Think" }
                }
                p.note id="message" role="status" {}
                div id="texts" {}
            }
            section {
                h2 { "The posterior forms" }
                input type="range" id="scrub" min="0" aria-label="Fast step";
                p.note id="step" {}
                svg id="curve" viewBox="0 0 600 90" preserveAspectRatio="none" role="img"
                    aria-label="Nats over the steps" {}
                p.note {
                    span.bound { "bound" } " = " span.nll { "NLL" } " + " span.kl { "KL" }
                    ", by one sample a step. What the model would write now, decoded greedily from the posterior's mean; marked: not in the text."
                }
                p.decoded id="at-step" {}
            }
            section {
                h2 { "What the latents changed" }
                p.note { "Green tokens are cheaper with the latents, red ones dearer. Point at one, or reach it with Tab." }
                p id="tokens" {}
                div id="candidates" {}
            }
            section.wide {
                h2 { "The latents" }
                p.note { "Nats of KL of each latent, and the facts that it carries where they are known. Choose one and change it." }
                div id="grid" {}
                div id="changes" {}
                p.decoded id="changed" {}
                p.note id="changed-note" {}
            }
            section id="facts-section" hidden {
                h2 { "Facts that each latent carries" }
                div.scroll { table id="facts" {} }
                p.note id="facts-note" {}
            }
            section id="map-section" hidden {
                h2 { "A map of posteriors" }
                svg id="map" viewBox="0 0 600 400" role="img" aria-label="Texts by their posteriors" {}
                p.note id="map-note" {}
                p.decoded id="map-text" { "Point at the map: what the model writes there." }
                ul id="neighbours" {}
            }
            section.wide id="between-section" hidden {
                h2 { "Between two texts" }
                p { select id="pair" aria-label="Two texts" {} " " span.note id="share-note" {} }
                input type="range" id="share" min="0" aria-label="Share of the way";
                p.decoded id="between" {}
            }
            section.wide {
                h2 { "Take it with you" }
                div.tools {
                    button id="save-html" { "This page as a file" }
                    button id="save-png" { "A picture (PNG)" }
                    button id="save-safetensors" { "The posterior (safetensors)" }
                }
                p.note {
                    "Keys: " kbd { "←" } " " kbd { "→" } " steps, " kbd { "1" } "–" kbd { "9" } " texts, " kbd { "L" }
                    " next latent, " kbd { "A" } " all, " kbd { "K" } " knock out, " kbd { "H" } " halve, " kbd { "D" }
                    " double, " kbd { "R" } " resample, " kbd { "Esc" } " none. The address holds what is shown."
                }
            }
        }
    }
}

/// A number with its thousands apart.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let place = |(at, digit): (usize, char)| {
        let is_apart = at > 0 && (digits.len() - at).is_multiple_of(3);
        is_apart.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::About;

    fn document(name: &str, text: &str) -> Document {
        let about = About {
            name: name.into(),
            parameters: 3,
            n_layers: 1,
            latents_per_layer: 2,
            dim: 1,
            context: 8,
            window: 4,
            prior_mean: vec![0.0; 2],
            prior_sample: vec![0.5; 2],
        };
        let ledger = crate::explore::Ledger {
            protocol: "elbo",
            samples: 1,
            without: 1.0,
            with: 1.0,
            standard_error: 0.0,
            cost: 0.0,
            saved: 0.0,
            bound: 1.0,
        };
        let text = crate::explore::Exploration {
            text: text.into(),
            seed: 0,
            steps: Vec::new(),
            mu: vec![0.0; 2],
            log_var: vec![0.0; 2],
            kl_per_latent: None,
            kl_per_layer: vec![0.0],
            ledger,
            tokens: Vec::new(),
            decoded: String::new(),
        };
        let (texts, changes) = (vec![text], vec![Vec::new()]);
        Document { about, texts, changes, between: Vec::new(), map: None, facts: None }
    }

    #[test]
    fn a_text_cannot_become_markup() {
        let evil = "</script><img src=x onerror=alert(1)> \u{2028} & \"";
        let page = page(&document(evil, evil), None).expect("a page");
        assert!(!page.contains("<img") && !page.contains(evil), "{page}");
        assert_eq!(page.matches("</script>").count(), 2, "the two that are its own");
        let start = page.find("id=\"data\">").expect("the document") + 10;
        let json = page[start..].split("</script>").next().expect("it ends");
        let found: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(found["texts"][0]["text"], evil);
        assert!(!page.contains("data-live="));
    }

    #[test]
    fn thousands_are_apart() {
        let found = [0, 999, 1000, 281_408, 1_000_000].map(thousands);
        assert_eq!(found, ["0", "999", "1,000", "281,408", "1,000,000"]);
    }

    #[test]
    fn a_page_reads_nothing_from_elsewhere() {
        let page = page(&document("m", "t"), Some("/v1/explorations")).expect("a page");
        assert!(page.contains("data-live=\"/v1/explorations\"") && page.contains(POLICY));
        let names = "http://www.w3.org/";
        assert!(!page.replace(names, "").contains("://"), "no address but the names of XML");
        assert!(!page.contains("src=") && !page.contains("@import") && !page.contains("url("));
        let mut none = document("m", "t");
        none.texts.clear();
        assert!(super::page(&none, None).is_err());
    }
}
