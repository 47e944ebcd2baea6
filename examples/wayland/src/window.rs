//! The Wayland client: a window in shared memory, by smithay-client-toolkit, as any program has one. Of lodger it knows
//! one call, [`App::tell`].

use std::error::Error;

use calloop::LoopHandle;
use smithay_client_toolkit::compositor::{CompositorHandler, CompositorState, FrameCallbackData};
use smithay_client_toolkit::output::{OutputHandler, OutputState};
use smithay_client_toolkit::reexports::{
    calloop_wayland_source::WaylandSource,
    client::globals::registry_queue_init,
    client::protocol::{
        wl_keyboard::WlKeyboard, wl_output::Transform, wl_output::WlOutput, wl_pointer::WlPointer,
        wl_seat::WlSeat, wl_shm::Format, wl_surface::WlSurface,
    },
    client::{Connection, Proxy, QueueHandle},
    protocols::xdg::shell::client::xdg_toplevel::ResizeEdge,
};
use smithay_client_toolkit::registry::{ProvidesRegistryState, RegistryState};
use smithay_client_toolkit::seat::keyboard::{KeyEvent, KeyboardHandler, Keysym, Modifiers, RawModifiers};
use smithay_client_toolkit::seat::pointer::{
    CursorIcon, PointerData, PointerEvent, PointerEventKind, PointerHandler, ThemeSpec, ThemedPointer,
};
use smithay_client_toolkit::seat::{Capability, SeatHandler, SeatState};
use smithay_client_toolkit::shell::WaylandSurface;
use smithay_client_toolkit::shell::xdg::XdgShell;
use smithay_client_toolkit::shell::xdg::window::{
    Window as Toplevel, WindowConfigure, WindowDecorations, WindowHandler,
};
use smithay_client_toolkit::shm::slot::SlotPool;
use smithay_client_toolkit::shm::{Shm, ShmHandler};
use smithay_client_toolkit::{delegate_dispatch2, delegate_registry, registry_handlers};

use crate::App;
use crate::paint::{self, Canvas, Corners, Layout};
use crate::web::json;

/// Unless the compositor wants another.
const SIZE: (u32, u32) = (760, 600);
const SIZE_MIN: (u32, u32) = (480, 400);

/// The window, and what belongs to it.
pub(crate) struct Window {
    toplevel: Toplevel,
    pool: SlotPool,
    size: (u32, u32),
    corners: Corners,
    /// Whether keys come here.
    focus: bool,
    drawing: Drawing,
    keyboard: Option<WlKeyboard>,
    pointer: Option<ThemedPointer>,
    queue: QueueHandle<App>,
    registry: RegistryState,
    compositor: CompositorState,
    outputs: OutputState,
    seats: SeatState,
    shm: Shm,
}

/// When to draw. The compositor says when it wants another picture, and gets one if there is something new.
///
/// ```text
///              configure               drawn                     change
///   Unmapped ─────────────▶ Due ─────────────────▶ Shown(false) ─────────▶ Shown(true)
///                            ▲                          │ frame                │ frame
///                            │ change                   ▼                      │
///                            ├─────────────────────── Idle                     │
///                            └─────────────────────────────────────────────────┘
/// ```
#[derive(Clone, Copy, PartialEq)]
enum Drawing {
    /// The compositor has not said yet how large the window is.
    Unmapped,
    /// Something is new.
    Due,
    /// The compositor has a picture that it has not shown yet; whether something is new since.
    Shown(bool),
    /// Nothing is new.
    Idle,
}

impl Window {
    /// Connects to the compositor, and makes that a source of the loop.
    pub(crate) fn open(handle: &LoopHandle<'static, App>) -> Result<Self, Box<dyn Error>> {
        let connection = Connection::connect_to_env().map_err(|error| {
            format!(
                "there is no Wayland compositor to show a window ({error}). Run this in a Wayland session, or start \
                 `weston` and set WAYLAND_DISPLAY to its socket"
            )
        })?;
        let (globals, events) = registry_queue_init::<App>(&connection)?;
        let queue = events.handle();
        WaylandSource::new(connection, events).insert(handle.clone()).map_err(|refused| refused.error)?;

        let compositor = CompositorState::bind(&globals, &queue)?;
        let shm = Shm::bind(&globals, &queue)?;
        let surface = compositor.create_surface(&queue);
        let shell = XdgShell::bind(&globals, &queue)?;
        let toplevel = shell.create_window(surface, WindowDecorations::RequestClient, &queue);
        toplevel.set_title("A window, and its lodger");
        toplevel.set_app_id("lodger-examples-wayland");
        toplevel.set_min_size(Some(SIZE_MIN));
        // Without a picture yet: the compositor answers with a size, and from then on there may be one.
        toplevel.commit();

        Ok(Self {
            toplevel,
            pool: SlotPool::new((SIZE.0 * SIZE.1 * 4) as usize, &shm)?,
            size: SIZE,
            corners: Corners::Round,
            focus: false,
            drawing: Drawing::Unmapped,
            keyboard: None,
            pointer: None,
            registry: RegistryState::new(&globals),
            compositor,
            outputs: OutputState::new(&globals, &queue),
            seats: SeatState::new(&globals, &queue),
            shm,
            queue,
        })
    }

    /// What the window shows has changed. However often that is said, it is drawn once for each frame.
    pub(crate) fn change(&mut self) {
        self.drawing = match self.drawing {
            Drawing::Unmapped => Drawing::Unmapped,
            Drawing::Due | Drawing::Idle => Drawing::Due,
            Drawing::Shown(_) => Drawing::Shown(true),
        }
    }

    /// For pages: how large the window is, where its board lies, and whether keys come to it.
    pub(crate) fn describe(&self) -> String {
        let (width, height) = self.size;
        let board = Layout::of(self.size).board;
        format!(
            r#"{{"size":[{width},{height}],"board":[{},{},{},{}],"focus":{}}}"#,
            board.left,
            board.top,
            board.width(),
            board.height(),
            self.focus
        )
    }
}

impl App {
    /// Draws, if there is something to draw and the compositor wants it.
    pub(crate) fn redraw(&mut self) -> Result<(), Box<dyn Error>> {
        let window = &mut self.window;
        if window.drawing != Drawing::Due {
            return Ok(());
        }
        let (width, height) = (window.size.0 as i32, window.size.1 as i32);
        let (buffer, pixels) = window.pool.create_buffer(width, height, width * 4, Format::Argb8888)?;
        paint::scene(&mut Canvas::new(pixels, window.size), window.corners, &self.board, &self.pages);

        let surface = window.toplevel.wl_surface();
        buffer.attach_to(surface)?;
        surface.damage_buffer(0, 0, width, height);
        surface.frame(&window.queue, FrameCallbackData(surface.clone()));
        window.toplevel.commit();
        window.drawing = Drawing::Shown(false);
        Ok(())
    }

    /// A button went down. The window draws its own frame, so it is what moves, resizes and closes it.
    fn press(&mut self, pointer: &WlPointer, (x, y): (f64, f64), serial: u32) {
        let layout = Layout::of(self.window.size);
        let Some(data) = pointer.data::<PointerData<()>>() else { return };
        if layout.close.contains(x, y) {
            self.closing = true;
        } else if layout.grip.contains(x, y) {
            self.window.toplevel.resize(data.seat(), serial, ResizeEdge::BottomRight);
        } else if layout.header.contains(x, y) {
            self.window.toplevel.move_(data.seat(), serial);
        }
    }

    fn focus(&mut self, focus: bool) {
        self.window.focus = focus;
        self.tell(format!(r#"{{"focus":{focus}}}"#));
    }

    fn key(&mut self, event: &KeyEvent, pressed: bool) {
        let name = event.keysym.name().map_or("", |name| name.trim_start_matches("XK_"));
        let text = event.utf8.as_deref().unwrap_or("");
        self.tell(format!(
            r#"{{"key":{},"code":{},"text":{},"pressed":{pressed}}}"#,
            json(name),
            event.raw_code,
            json(text)
        ));
    }
}

impl WindowHandler for App {
    fn request_close(&mut self, _: &Connection, _: &QueueHandle<Self>, _: &Toplevel) {
        self.closing = true;
    }

    fn configure(
        &mut self,
        _: &Connection,
        _: &QueueHandle<Self>,
        _: &Toplevel,
        configure: WindowConfigure,
        _: u32,
    ) {
        let (width, height) = configure.new_size;
        let previous = self.window.size;
        self.window.size = (width.map_or(previous.0, u32::from), height.map_or(previous.1, u32::from));
        let touching = configure.is_maximized() || configure.is_fullscreen() || configure.is_tiled();
        self.window.corners = if touching { Corners::Square } else { Corners::Round };
        if self.window.drawing == Drawing::Unmapped {
            self.window.drawing = Drawing::Due;
        }
        self.window.change();
        if self.window.size != previous {
            self.tell(self.window.describe());
        }
    }
}

impl CompositorHandler for App {
    /// The compositor has shown the last picture, and would take another.
    fn frame(&mut self, _: &Connection, _: &QueueHandle<Self>, _: &WlSurface, _: u32) {
        if let Drawing::Shown(changed) = self.window.drawing {
            self.window.drawing = if changed { Drawing::Due } else { Drawing::Idle };
        }
    }

    // On dense screens the compositor enlarges what it gets.
    fn scale_factor_changed(&mut self, _: &Connection, _: &QueueHandle<Self>, _: &WlSurface, _: i32) {}
    fn transform_changed(&mut self, _: &Connection, _: &QueueHandle<Self>, _: &WlSurface, _: Transform) {}
    fn surface_enter(&mut self, _: &Connection, _: &QueueHandle<Self>, _: &WlSurface, _: &WlOutput) {}
    fn surface_leave(&mut self, _: &Connection, _: &QueueHandle<Self>, _: &WlSurface, _: &WlOutput) {}
}

impl PointerHandler for App {
    fn pointer_frame(
        &mut self,
        connection: &Connection,
        _: &QueueHandle<Self>,
        pointer: &WlPointer,
        events: &[PointerEvent],
    ) {
        for event in events {
            let (x, y) = event.position;
            match &event.kind {
                PointerEventKind::Enter { .. } => {
                    if let Some(themed) = &self.window.pointer {
                        // Without a theme it looks as it did outside.
                        let _ = themed.set_cursor(connection, CursorIcon::Default);
                    }
                    self.tell(format!(r#"{{"pointer":[{x:.1},{y:.1}]}}"#));
                }
                PointerEventKind::Motion { .. } => self.tell(format!(r#"{{"pointer":[{x:.1},{y:.1}]}}"#)),
                PointerEventKind::Leave { .. } => self.tell(r#"{"pointer":null}"#.to_owned()),
                PointerEventKind::Press { button, serial, .. } => {
                    self.tell(format!(r#"{{"button":"{}","pressed":true}}"#, button_name(*button)));
                    self.press(pointer, event.position, *serial);
                }
                PointerEventKind::Release { button, .. } => {
                    self.tell(format!(r#"{{"button":"{}","pressed":false}}"#, button_name(*button)));
                }
                PointerEventKind::Axis { horizontal, vertical, .. } => {
                    self.tell(format!(r#"{{"scroll":[{},{}]}}"#, horizontal.absolute, vertical.absolute));
                }
            }
        }
    }
}

/// The buttons by the numbers that Linux gives them.
fn button_name(button: u32) -> &'static str {
    match button {
        0x110 => "left",
        0x111 => "right",
        0x112 => "middle",
        _ => "other",
    }
}

impl KeyboardHandler for App {
    fn press_key(&mut self, _: &Connection, _: &QueueHandle<Self>, _: &WlKeyboard, _: u32, event: KeyEvent) {
        self.key(&event, true);
    }

    fn release_key(
        &mut self,
        _: &Connection,
        _: &QueueHandle<Self>,
        _: &WlKeyboard,
        _: u32,
        event: KeyEvent,
    ) {
        self.key(&event, false);
    }

    fn enter(
        &mut self,
        _: &Connection,
        _: &QueueHandle<Self>,
        _: &WlKeyboard,
        _: &WlSurface,
        _: u32,
        _: &[u32],
        _: &[Keysym],
    ) {
        self.focus(true);
    }

    fn leave(&mut self, _: &Connection, _: &QueueHandle<Self>, _: &WlKeyboard, _: &WlSurface, _: u32) {
        self.focus(false);
    }

    fn repeat_key(&mut self, _: &Connection, _: &QueueHandle<Self>, _: &WlKeyboard, _: u32, _: KeyEvent) {}
    fn update_modifiers(
        &mut self,
        _: &Connection,
        _: &QueueHandle<Self>,
        _: &WlKeyboard,
        _: u32,
        _: Modifiers,
        _: RawModifiers,
        _: u32,
    ) {
    }
}

impl SeatHandler for App {
    fn seat_state(&mut self) -> &mut SeatState {
        &mut self.window.seats
    }

    fn new_capability(
        &mut self,
        _: &Connection,
        queue: &QueueHandle<Self>,
        seat: WlSeat,
        capability: Capability,
    ) {
        let window = &mut self.window;
        if capability == Capability::Keyboard && window.keyboard.is_none() {
            window.keyboard = window.seats.get_keyboard(queue, &seat, None).ok();
        }
        if capability == Capability::Pointer && window.pointer.is_none() {
            let cursor = window.compositor.create_surface(queue);
            let (shm, theme) = (window.shm.wl_shm(), ThemeSpec::default());
            let themed = window.seats.get_pointer_with_theme::<_, ()>(queue, &seat, shm, cursor, theme);
            window.pointer = themed.ok();
        }
    }

    fn remove_capability(
        &mut self,
        _: &Connection,
        _: &QueueHandle<Self>,
        _: WlSeat,
        capability: Capability,
    ) {
        let window = &mut self.window;
        if capability == Capability::Keyboard {
            window.keyboard.take().inspect(WlKeyboard::release);
        }
        if capability == Capability::Pointer {
            window.pointer.take().inspect(|themed| themed.pointer().release());
        }
    }

    fn new_seat(&mut self, _: &Connection, _: &QueueHandle<Self>, _: WlSeat) {}
    fn remove_seat(&mut self, _: &Connection, _: &QueueHandle<Self>, _: WlSeat) {}
}

impl OutputHandler for App {
    fn output_state(&mut self) -> &mut OutputState {
        &mut self.window.outputs
    }

    fn new_output(&mut self, _: &Connection, _: &QueueHandle<Self>, _: WlOutput) {}
    fn update_output(&mut self, _: &Connection, _: &QueueHandle<Self>, _: WlOutput) {}
    fn output_destroyed(&mut self, _: &Connection, _: &QueueHandle<Self>, _: WlOutput) {}
}

impl ShmHandler for App {
    fn shm_state(&mut self) -> &mut Shm {
        &mut self.window.shm
    }
}

impl ProvidesRegistryState for App {
    fn registry(&mut self) -> &mut RegistryState {
        &mut self.window.registry
    }

    registry_handlers![OutputState, SeatState];
}

delegate_registry!(App);
delegate_dispatch2!(App);
