//! The picture of the window, by hand: a few shapes with smooth edges, and letters, blended into a buffer of pixels.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use crate::web::{Board, Pages};

type Colour = [u8; 3];

const PAPER: Colour = [0xf5, 0xf3, 0xee];
const CARD: Colour = [0xff, 0xfe, 0xfb];
const LINE: Colour = [0xe5, 0xe0, 0xd5];
const INK: Colour = [0x1f, 0x23, 0x28];
const SOFT: Colour = [0x6b, 0x68, 0x60];
const LODGER: Colour = [0xb8, 0x50, 0x1a];
const OK: Colour = [0x3b, 0x7d, 0x4f];

const MARGIN: f32 = 24.0;
const RADIUS: f32 = 14.0;
/// Between the dots on the board.
const GRID: usize = 20;
/// Parts of the board are told in these.
const WHOLE: f32 = 65535.0;

/// A part of the window.
#[derive(Clone, Copy)]
pub(crate) struct Area {
    pub(crate) left: f32,
    pub(crate) top: f32,
    right: f32,
    bottom: f32,
}

impl Area {
    const fn new(left: f32, top: f32, right: f32, bottom: f32) -> Self {
        Self { left, top, right, bottom }
    }

    pub(crate) fn width(&self) -> f32 {
        self.right - self.left
    }

    pub(crate) fn height(&self) -> f32 {
        self.bottom - self.top
    }

    pub(crate) fn contains(&self, x: f64, y: f64) -> bool {
        let (x, y) = (x as f32, y as f32);
        self.left <= x && x < self.right && self.top <= y && y < self.bottom
    }

    fn shrunk(&self, by: f32) -> Self {
        Self::new(self.left + by, self.top + by, self.right - by, self.bottom - by)
    }

    fn within(&self, other: &Self) -> Self {
        Self::new(
            self.left.max(other.left),
            self.top.max(other.top),
            self.right.min(other.right),
            self.bottom.min(other.bottom),
        )
    }
}

/// What is where in a window.
pub(crate) struct Layout {
    pub(crate) header: Area,
    pub(crate) close: Area,
    pub(crate) board: Area,
    text: Area,
    /// The corner that resizes the window.
    pub(crate) grip: Area,
}

impl Layout {
    pub(crate) fn of((width, height): (u32, u32)) -> Self {
        let (width, height) = (width as f32, height as f32);
        let text = Area::new(MARGIN, height - MARGIN - 118.0, width - MARGIN, height - MARGIN);
        Self {
            header: Area::new(0.0, 0.0, width, 96.0),
            close: Area::new(width - 60.0, 20.0, width - 24.0, 56.0),
            board: Area::new(MARGIN, 96.0, width - MARGIN, text.top - 16.0),
            text,
            grip: Area::new(width - 22.0, height - 22.0, width, height),
        }
    }
}

/// Those of the window: square where they touch something.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Corners {
    Round,
    Square,
}

/// Everything.
pub(crate) fn scene(canvas: &mut Canvas<'_>, corners: Corners, board: &Board, pages: &Pages) {
    let layout = Layout::of(canvas.size);
    canvas.clear();
    let radius = if corners == Corners::Round { RADIUS } else { 0.0 };
    canvas.sheet(canvas.clip, radius, PAPER);
    header(canvas, &layout, pages);
    canvas.sheet(layout.board, RADIUS, CARD);
    strokes(canvas, layout.board, board);
    canvas.sheet(layout.text, RADIUS, CARD);
    typed(canvas, layout.text, &board.text);
    for step in [7.0, 12.0] {
        let (right, bottom) = (layout.grip.right - 5.0, layout.grip.bottom - 5.0);
        canvas.line((right - step, bottom), (right, bottom - step), 1.5, LINE);
    }
}

fn header(canvas: &mut Canvas<'_>, layout: &Layout, pages: &Pages) {
    let end = canvas.text(MARGIN, 16.0, TITLE, INK, "A window, and its ");
    canvas.text(end, 16.0, TITLE, LODGER, "lodger");

    let (colour, who) = match pages.count {
        0 => (LINE, "no page open".to_owned()),
        1 => (OK, "1 page open".to_owned()),
        count => (OK, format!("{count} pages open")),
    };
    canvas.line((MARGIN + 5.0, 67.0), (MARGIN + 5.0, 67.0), 10.0, colour);
    canvas.text(MARGIN + 20.0, 56.0, SMALL, SOFT, &format!("{who} at http://{}/", pages.address));

    let cross = layout.close.shrunk(12.0);
    canvas.line((cross.left, cross.top), (cross.right, cross.bottom), 1.8, SOFT);
    canvas.line((cross.left, cross.bottom), (cross.right, cross.top), 1.8, SOFT);
}

fn strokes(canvas: &mut Canvas<'_>, area: Area, board: &Board) {
    canvas.clip(area.shrunk(1.0));
    for y in (area.top as usize..area.bottom as usize).step_by(GRID).skip(1) {
        for x in (area.left as usize..area.right as usize).step_by(GRID).skip(1) {
            canvas.line((x as f32, y as f32), (x as f32, y as f32), 2.0, LINE);
        }
    }
    let width = (area.width() / 170.0).max(3.0);
    for stroke in &board.strokes {
        let Some((&colour, points)) = stroke.split_first_chunk() else { continue };
        let points: Vec<_> = points
            .as_chunks()
            .0
            .iter()
            .map(|&[x0, x1, y0, y1]| {
                let part = |high, low| f32::from(u16::from_be_bytes([high, low])) / WHOLE;
                (area.left + part(x0, x1) * area.width(), area.top + part(y0, y1) * area.height())
            })
            .collect();
        // A stroke of one point is a dot.
        for pair in points.windows(2.min(points.len())) {
            canvas.line(pair[0], pair[pair.len() - 1], width, colour);
        }
    }
    canvas.unclip();
}

/// What was typed, its last lines if there are too many.
fn typed(canvas: &mut Canvas<'_>, area: Area, text: &str) {
    let inside = area.shrunk(18.0);
    if text.is_empty() {
        canvas.text(inside.left, inside.top, SMALL, SOFT, "Type and draw in the page: it appears here.");
        return;
    }
    let (columns, room) = (
        (inside.width() / LARGE.advance()) as usize,
        (inside.height() / LARGE.leading()).round().max(1.0) as usize,
    );
    let lines = wrap(text, columns);
    let shown = &lines[lines.len().saturating_sub(room)..];
    let (mut end, mut top) = (inside.left, inside.top - LARGE.leading());
    for line in shown {
        top += LARGE.leading();
        end = canvas.text(inside.left, top, LARGE, INK, line);
    }
    canvas.line((end + 3.0, top + 3.0), (end + 3.0, top + 22.0), 2.0, LODGER);
}

/// Lines of at most so many columns, broken between words where there is a place to.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut rest: Vec<char> = paragraph.chars().collect();
        while rest.len() > columns {
            let space = rest[..=columns].iter().rposition(|&c| c == ' ').filter(|&at| at > 0);
            let next = rest.split_off(space.map_or(columns, |at| at + 1));
            lines.push(rest.iter().collect::<String>().trim_end().to_owned());
            rest = next;
        }
        lines.push(rest.iter().collect());
    }
    lines
}

/// A size and weight of letters.
#[derive(Clone, Copy)]
struct Face(FontWeight, RasterHeight);

const TITLE: Face = Face(FontWeight::Bold, RasterHeight::Size32);
const LARGE: Face = Face(FontWeight::Regular, RasterHeight::Size24);
const SMALL: Face = Face(FontWeight::Regular, RasterHeight::Size20);

impl Face {
    fn advance(self) -> f32 {
        get_raster_width(self.0, self.1) as f32
    }

    fn leading(self) -> f32 {
        self.1.val() as f32 + 6.0
    }
}

/// Pixels as `wl_shm` has them: blue, green and red, each multiplied by how opaque they are, and that.
pub(crate) struct Canvas<'a> {
    pixels: &'a mut [[u8; 4]],
    size: (u32, u32),
    /// Nothing is drawn outside of this.
    clip: Area,
}

impl<'a> Canvas<'a> {
    pub(crate) fn new(bytes: &'a mut [u8], size: (u32, u32)) -> Self {
        let clip = Area::new(0.0, 0.0, size.0 as f32, size.1 as f32);
        Self { pixels: bytes.as_chunks_mut().0, size, clip }
    }

    /// Nothing is there: one looks through the window.
    fn clear(&mut self) {
        self.pixels.fill([0; 4]);
    }

    fn clip(&mut self, area: Area) {
        self.clip = area.within(&self.clip);
    }

    fn unclip(&mut self) {
        self.clip = Area::new(0.0, 0.0, self.size.0 as f32, self.size.1 as f32);
    }

    /// Mixes `colour` into each pixel of `area`, as far as `cover` says from 0 to 1 for the middle of that pixel.
    fn blend(&mut self, area: Area, [red, green, blue]: Colour, cover: impl Fn(f32, f32) -> f32) {
        let area = area.within(&self.clip);
        let columns = area.left.floor() as usize..area.right.ceil().max(0.0) as usize;
        for y in area.top.floor() as usize..area.bottom.ceil().max(0.0) as usize {
            for x in columns.clone() {
                let part = cover(x as f32 + 0.5, y as f32 + 0.5).clamp(0.0, 1.0);
                let pixel = &mut self.pixels[y * self.size.0 as usize + x];
                if part == 1.0 {
                    *pixel = [blue, green, red, 0xff];
                } else if part > 0.0 {
                    for (old, new) in pixel.iter_mut().zip([blue, green, red, 0xff]) {
                        let (from, to) = (f32::from(*old), f32::from(new));
                        *old = (from + (to - from) * part).round() as u8;
                    }
                }
            }
        }
    }

    /// A line with round ends.
    fn line(&mut self, from: (f32, f32), to: (f32, f32), width: f32, colour: Colour) {
        let (along, across) = (to.0 - from.0, to.1 - from.1);
        let squared = (along * along + across * across).max(f32::MIN_POSITIVE);
        let reach = width / 2.0 + 1.0;
        let (first, last) = (from.1.min(to.1) - reach, from.1.max(to.1) + reach);
        for row in first.floor() as i32..last.ceil() as i32 {
            // Only the part of the line that is near: the box around a long one is mostly empty.
            let row = row as f32;
            let part = |y: f32| from.0 + along * ((y - from.1) / across).clamp(0.0, 1.0);
            let (a, b) = if across.abs() < 1.0 {
                (from.0, to.0)
            } else {
                (part(row - reach), part(row + 1.0 + reach))
            };
            let near = Area::new(a.min(b) - reach, row, a.max(b) + reach, row + 1.0);
            self.blend(near, colour, |x, y| {
                let (dx, dy) = (x - from.0, y - from.1);
                let nearest = ((dx * along + dy * across) / squared).clamp(0.0, 1.0);
                width / 2.0 + 0.5 - length(dx - nearest * along, dy - nearest * across)
            });
        }
    }

    /// A rectangle with round corners and a fine line around it.
    fn sheet(&mut self, area: Area, radius: f32, colour: Colour) {
        self.rounded(area, radius, LINE);
        self.rounded(area.shrunk(1.0), (radius - 1.0).max(0.0), colour);
    }

    fn rounded(&mut self, area: Area, radius: f32, colour: Colour) {
        let core = area.shrunk(radius);
        self.blend(area, colour, |x, y| {
            let (dx, dy) = ((core.left - x).max(x - core.right), (core.top - y).max(y - core.bottom));
            radius + 0.5 - length(dx.max(0.0), dy.max(0.0))
        });
    }

    /// One line of text; answers where it ends.
    fn text(&mut self, left: f32, top: f32, face: Face, colour: Colour, text: &str) -> f32 {
        let mut left = left.round();
        let top = top.round();
        for character in text.chars() {
            let Face(weight, size) = face;
            let letter = get_raster(character, weight, size).or_else(|| get_raster('?', weight, size));
            if let Some(letter) = letter {
                let area = Area::new(left, top, left + letter.width() as f32, top + letter.height() as f32);
                self.blend(area, colour, |x, y| {
                    let pixel = letter.pixel((x - left) as usize, (y - top) as usize);
                    f32::from(pixel.unwrap_or(0)) / 255.0
                });
            }
            left += face.advance();
        }
        left
    }
}

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_any_size_can_be_drawn() {
        let stroke = [&[0xc0, 0x39, 0x2b][..], &[0; 4], &[0xff; 4], &[0xff, 0xff, 0, 0]].concat();
        let board = Board { text: "a longer text\nof two lines".to_owned(), strokes: [stroke].into() };
        for size in [(1, 1), (10, 400), (400, 10), (60, 60), (480, 400), (1001, 701)] {
            let mut bytes = vec![0; (size.0 * size.1 * 4) as usize];
            let (mut canvas, layout) = (Canvas::new(&mut bytes, size), Layout::of(size));
            canvas.sheet(canvas.clip, RADIUS, PAPER);
            canvas.sheet(layout.board, RADIUS, CARD);
            strokes(&mut canvas, layout.board, &board);
            typed(&mut canvas, layout.text, &board.text);
        }
    }

    #[test]
    fn a_stroke_is_opaque_where_it_is_and_nothing_is_beside_it() {
        let mut bytes = vec![0; 40 * 40 * 4];
        let mut canvas = Canvas::new(&mut bytes, (40, 40));
        canvas.line((5.0, 5.0), (35.0, 35.0), 6.0, [1, 2, 3]);
        assert_eq!(canvas.pixels[20 * 40 + 20], [3, 2, 1, 0xff]);
        assert_eq!(canvas.pixels[10 * 40 + 30], [0; 4]);
        assert!(canvas.pixels.iter().any(|pixel| (1..0xff).contains(&pixel[3])), "its edges are smooth");
    }

    #[test]
    fn lines_break_between_words_or_where_they_must() {
        assert_eq!(wrap("is anybody home", 10), ["is anybody", "home"].map(str::to_owned));
        assert_eq!(wrap("is anybody home", 9), ["is", "anybody", "home"].map(str::to_owned));
        assert_eq!(wrap("anybody\n\n", 4), ["anyb", "ody", "", ""].map(str::to_owned));
        assert_eq!(wrap("ab", 0), ["a", "b"].map(str::to_owned));
    }
}
