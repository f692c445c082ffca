//! Input images: `[{"name": …, "image": base64 | data URI | URL}]`, as worker-comfyui has them.

use serde_json::value::RawValue;

use crate::domain::base64;
use crate::domain::job::{ImageSource, InputImage, OpenError};
use crate::domain::json::{self, Fields};
use crate::domain::secret::Secret;

/// The most images of one request.
const MOST: usize = 256;
/// The longest name, in bytes: what file systems take.
const LONGEST_NAME: usize = 255;
/// What the end of a name means to ComfyUI: another directory.
const ANNOTATIONS: [&str; 3] = ["[input]", "[output]", "[temp]"];

/// Takes the list; none is an empty one.
pub(super) fn read(list: Option<&RawValue>) -> Result<Vec<InputImage>, OpenError> {
    let wrong = OpenError::Field("images must be a list of at most 256 objects with name and image");
    let Some(list) = list else { return Ok(Vec::new()) };
    let items: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|_| wrong.clone())?;
    if items.len() > MOST {
        return Err(wrong);
    }
    let mut images: Vec<InputImage> = Vec::with_capacity(items.len());
    for item in items {
        let mut fields = Fields::of_value(item, "images").map_err(|_| wrong.clone())?;
        let name = fields.take("name").and_then(json::string).filter(|name| is_plain(name));
        let name = name.ok_or(OpenError::Field("images[].name must be a plain file name"))?.into_owned();
        if images.iter().any(|known| known.name == name) {
            return Err(OpenError::Field("images[].name must be another one for each image"));
        }
        let image = fields.take("image").and_then(json::string);
        let source = image.and_then(|text| source(&text));
        let source =
            source.ok_or(OpenError::Field("images[].image must be base64, a data URI with base64, or a URL"))?;
        images.push(InputImage { name, source });
    }
    Ok(images)
}

/// True for a name that stays in its directory wherever it is put.
fn is_plain(name: &str) -> bool {
    let refused = |letter: char| letter.is_control() || matches!(letter, '/' | '\\' | ':');
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && !name.starts_with(['.', '-', ' '])
        && !name.ends_with(['.', ' '])
        && !name.contains(refused)
        && !ANNOTATIONS.iter().any(|annotation| name.ends_with(annotation))
}

fn source(text: &str) -> Option<ImageSource> {
    let begins = |prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if begins("http://") || begins("https://") {
        return Some(ImageSource::Url(Secret::from(text.to_owned())));
    }
    let data = if begins("data:") {
        let (kind, data) = text.split_once(',')?;
        kind.to_ascii_lowercase().ends_with(";base64").then_some(data)?
    } else {
        text
    };
    let bytes = base64::decode(data).ok().filter(|bytes| !bytes.is_empty())?;
    Some(ImageSource::Bytes(Secret::new(bytes)))
}
