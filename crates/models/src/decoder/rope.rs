//! Rotary positions: from the keys of a config to a table of inverse frequencies.
//!
//! In: `rope_parameters` as files have them today, or `rope_theta` and `rope_scaling` as they had.
//! Out: radians per position for each pair of a head's columns, and a factor of their cosines and
//! sines. Never: a scaling that depends on the length of the text at hand.

use std::f64::consts::TAU;

use serde_json::{Map, Value};

use crate::Error;
use crate::config::Keys;

/// Rotary positions (Su et al. 2021, arXiv:2104.09864).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// The slowest pair turns by about `1/theta` per position.
    pub theta: f64,
    /// How the frequencies are changed for longer texts.
    pub scaling: RopeScaling,
}

/// Changes of the frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// All are divided by `factor` (Chen et al. 2023, arXiv:2306.15595).
    Linear {
        /// At least 1 as a rule.
        factor: f64,
    },
    /// Long waves are divided by `factor`, short ones kept (Llama 3; Grattafiori et al. 2024,
    /// arXiv:2407.21783).
    Llama3 {
        /// Divides the frequencies of long waves.
        factor: f64,
        /// Waves longer than `original / low` are long.
        low: f64,
        /// Waves shorter than `original / high` are short.
        high: f64,
        /// Positions the model was first trained on.
        original: f64,
    },
    /// Pairs that turn often are kept, those that turn rarely are divided by `factor`, and
    /// attention is sharpened (YaRN; Peng et al. 2023, arXiv:2309.00071).
    Yarn {
        /// Divides the frequencies of pairs that turn rarely.
        factor: f64,
        /// Factor of cosines and sines.
        attention: f64,
        /// Pairs that turn more often than this over `original` positions are kept.
        fast: f64,
        /// Pairs that turn less often are divided.
        slow: f64,
        /// Positions the model was first trained on.
        original: f64,
        /// Whether the ends of the ramp between them are whole pairs.
        truncate: bool,
    },
}

impl Rope {
    /// Reads the keys of a config.
    pub(super) fn read(keys: &Keys<'_>, max_positions: usize) -> Result<Self, Error> {
        let empty = Map::new();
        let (name, map) = match (keys.map.get("rope_parameters"), keys.map.get("rope_scaling")) {
            (Some(Value::Object(map)), _) => ("rope_parameters", map),
            (None | Some(Value::Null), Some(Value::Object(map))) => ("rope_scaling", map),
            (None | Some(Value::Null), None | Some(Value::Null)) => ("rope_scaling", &empty),
            (None | Some(Value::Null), _) => return Err(keys.bad("rope_scaling", "an object")),
            _ => return Err(keys.bad("rope_parameters", "an object")),
        };
        // Messages show a key of the object as it was written there.
        let inside: Map<String, Value> =
            map.iter().map(|(key, value)| (format!("{name}.{key}"), value.clone())).collect();
        let inside = Keys { file: keys.file, map: &inside };
        let key = |key: &str| format!("{name}.{key}");
        let number = |of: &str, default: f64| inside.number(&key(of), default, 1e-9, 1e12);
        let required = |of: &str| match inside.map.contains_key(&key(of)) {
            true => number(of, 1.0),
            false => Err(inside.bad(&key(of), "a number")),
        };
        for (keys, of) in
            [(keys, "partial_rotary_factor".to_owned()), (&inside, key("partial_rotary_factor"))]
        {
            if keys.number(&of, 1.0, 0.0, 1.0)? != 1.0 {
                return Err(keys.bad(&of, "1"));
            }
        }
        let theta = number("rope_theta", keys.number("rope_theta", 10_000.0, 1.0, 1e12)?)?;
        let old = inside.text(&key("type"), "default")?;
        let kind = inside.text(&key("rope_type"), &old)?;
        let original = || {
            let original = number("original_max_position_embeddings", max_positions as f64)?;
            keys.number("original_max_position_embeddings", original, 1.0, 1e12)
        };
        let scaling = match kind.as_str() {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear { factor: required("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: required("factor")?,
                low: required("low_freq_factor")?,
                high: required("high_freq_factor")?,
                original: original()?,
            },
            "yarn" => {
                let original = original()?;
                let factor = number("factor", max_positions as f64 / original)?;
                let scale =
                    |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
                let optional = |of: &str| inside.number(&key(of), 0.0, 0.0, 1e9);
                let attention = match (optional("mscale")?, optional("mscale_all_dim")?) {
                    (of, all) if of > 0.0 && all > 0.0 => scale(of) / scale(all),
                    _ => scale(1.0),
                };
                RopeScaling::Yarn {
                    factor,
                    attention: number("attention_factor", attention)?,
                    fast: number("beta_fast", 32.0)?,
                    slow: number("beta_slow", 1.0)?,
                    original,
                    truncate: match inside.map.get(&key("truncate")) {
                        None | Some(Value::Null) => true,
                        Some(Value::Bool(truncate)) => *truncate,
                        Some(_) => return Err(inside.bad(&key("truncate"), "true or false")),
                    },
                }
            }
            _ => {
                let of =
                    if inside.map.contains_key(&key("rope_type")) { "rope_type" } else { "type" };
                return Err(inside.bad(&key(of), "one of default, linear, llama3, yarn"));
            }
        };
        Ok(Self { theta, scaling })
    }

    /// Radians per position of each pair in a head `each` wide, `[each / 2]`.
    pub fn frequencies(&self, each: usize) -> Vec<f64> {
        let pairs = each / 2;
        let plain = |pair: usize| 1.0 / self.theta.powf(2.0 * pair as f64 / each as f64);
        let scaled = |pair: usize| {
            let plain = plain(pair);
            match self.scaling {
                RopeScaling::Default => plain,
                RopeScaling::Linear { factor } => plain / factor,
                RopeScaling::Llama3 { factor, low, high, original } => {
                    let wave = TAU / plain;
                    if wave < original / high {
                        plain
                    } else if wave > original / low {
                        plain / factor
                    } else {
                        let kept = (original / wave - low) / (high - low);
                        (1.0 - kept) * plain / factor + kept * plain
                    }
                }
                RopeScaling::Yarn { factor, fast, slow, original, truncate, .. } => {
                    // The pair that turns `turns` times over the original positions.
                    let turning = |turns: f64| {
                        each as f64 * (original / (turns * TAU)).ln() / (2.0 * self.theta.ln())
                    };
                    let (mut low, mut high) = (turning(fast), turning(slow));
                    if truncate {
                        (low, high) = (low.floor(), high.ceil());
                    }
                    let (low, mut high) = (low.max(0.0), high.min(each as f64 - 1.0));
                    if low == high {
                        high += 0.001;
                    }
                    let divided = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    plain / factor * divided + plain * (1.0 - divided)
                }
            }
        };
        (0..pairs).map(scaled).collect()
    }

    /// Factor of cosines and sines.
    pub fn factor(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn { attention, .. } => attention,
            _ => 1.0,
        }
    }
}
