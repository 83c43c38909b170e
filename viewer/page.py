"""The page: what a browser shows and what its controls do.  The only file that knows viser."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from datasets.cameras.camera_path import write_camera_path
from datasets.cameras.poses import look_at_ball, up_axis
from datasets.cameras.rays import Cameras
from datasets.scene import Scene, View
from utils.errors import UserError
from utils.images import write_image
from utils.options import FILE_NAME
from viewer.exhibits import Exhibit
from viewer.film import along_keyframes, film, poses_of, write_film
from viewer.look import CHANNELS, Colours, Look, Pose
from viewer.pace import Frame
from viewer.studio import Studio, words_of

if TYPE_CHECKING:
    import viser

NOT_MIXED = "nothing"
ENDED = "The program that made the pictures has ended."
PARTING = 0.5  # seconds for the last words to reach the browsers
MOST_FRUSTA = 200
OVERSAMPLING = 2  # pixels of a picture for one of a training view, along its height
FRUSTUM = 0.06  # size of a camera, in distances of the cameras from what they look at, at most
GAP = 0.5  # the same, in distances from one camera to the next
CROP_DEPTH = 20.0  # of a forward-facing scene, in near planes, up to which a crop box can reach
MOST_FRAMES, LARGEST_SIDE = 3600, 4096  # of a video
OPENCV = np.diag([1.0, -1.0, -1.0])  # between OpenGL's camera axes and those of viser
GREY, BLUE, ORANGE = (110, 110, 110), (40, 110, 220), (240, 140, 20)
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def import_viser() -> ModuleType:
    """viser, which is an extra.

    Raises:
        UserError: it is not installed.
    """
    try:
        import viser
    except ImportError:
        raise UserError(
            "the page needs viser, which is not installed; pip install -r requirements-viewer.txt"
        ) from None
    return viser


class Page:
    """Serves the page; every browser that opens it gets a `Visitor`.

    Args:
        studio: makes the pictures.
        host, port: where it is served; the next free port where that one is taken.
        output_dir: of camera paths, videos and screenshots.

    Raises:
        UserError: viser is missing, or the machine has no such address.
    """

    def __init__(self, studio: Studio, host: str, port: int, output_dir: Path) -> None:
        viser = import_viser()
        require_address(host)

        class Server(viser.ViserServer):
            """Any browser may ask viser for a tunnel from the public internet; it gets none."""

            def request_share_url(self, verbose: bool = True) -> None:
                return None

        self.studio, self.host, self.output_dir = studio, host, output_dir
        logging.getLogger("websockets.server").setLevel(logging.WARNING)  # who comes and goes
        # its banner is not shown; `announcement` is ours
        with contextlib.redirect_stdout(io.StringIO()), for_own_pages_alone(host):
            self.server = Server(host=host, port=port, verbose=False)
        self.server.gui.configure_theme(show_logo=False, show_share_button=False)
        self._visitors: dict[int, Visitor] = {}
        self._open = False

    @property
    def address(self) -> str:
        """Of the page."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.server.get_port()}"

    @property
    def announcement(self) -> str:
        """Where the page is, and who can see it."""
        line = f"open {self.address}"
        if self.host in LOOPBACK:
            return f"{line}  (on this machine alone; Ctrl-C ends it)"
        return (
            f"{line}  (Ctrl-C ends it)\nwarning: --host {self.host}: whoever reaches this machine "
            "over the network can look, without a password, keep its processor busy, and have "
            f"paths, videos and screenshots written to {self.output_dir}"
        )

    def exhibit(self, exhibit: Exhibit) -> None:
        """Shows something, perhaps in place of something else."""
        self.studio.exhibit = exhibit
        scene = exhibit.scene(exhibit.first)
        first, distance = scene.train[0], focus_distance(scene)
        position = first.c2w[:, 3]
        up = up_axis(torch.stack([view.c2w for view in scene.train]))
        self.server.scene.set_up_direction(tuple(up.tolist()))
        camera = self.server.initial_camera
        camera.position = tuple(position.tolist())
        camera.look_at = tuple((position - distance * first.c2w[:, 2]).tolist())
        camera.fov = fov_of(first)
        camera.near, camera.far = 1e-3 * distance, 1e3 * distance
        if not self._open:
            self.server.on_client_connect(self._welcome)
            self.server.on_client_disconnect(self._left)
            self._open = True
            return
        for visitor in list(self._visitors.values()):
            self._farewell(visitor.client)
            visitor.client.gui.reset()
            visitor.client.scene.reset()
            self._welcome(visitor.client)

    def close(self, words: str = ENDED) -> None:
        """Ends it, and leaves a line on every page that is still open."""
        visitors = list(self._visitors.values())
        self.server.gui.set_panel_label("ended")  # in place of "Connecting..."
        for visitor in visitors:
            visitor.say(f"**{escaped(words)}**")
            visitor.client.flush()
        self.server.flush()
        if visitors:
            time.sleep(PARTING)
        with contextlib.redirect_stdout(io.StringIO()):
            self.server.stop()

    def _welcome(self, client: viser.ClientHandle) -> None:
        self._visitors[client.client_id] = Visitor(self, client)
        if client.client_id not in self.server.get_clients():  # it has left meanwhile
            self._farewell(client)

    async def _left(self, client: viser.ClientHandle) -> None:
        """Not in a thread: viser has none left when it ends while somebody looks."""
        self._farewell(client)

    def _farewell(self, client: viser.ClientHandle) -> None:
        visitor = self._visitors.pop(client.client_id, None)
        if visitor is not None:
            visitor.leave()


class Visitor:
    """One browser: its controls, and the screen that its pictures are shown on.

    Args:
        page: that it has opened.
        client: viser's handle of it.
    """

    def __init__(self, page: Page, client: viser.ClientHandle) -> None:
        self.page, self.studio, self.client = page, page.studio, client
        self.exhibit = page.studio.exhibit
        self.scene = self.exhibit.scene(self.exhibit.first)
        self.keyframes: list[Pose] = []
        self.filming: Future | None = None
        self.previewing = self._placed = False
        self._shown_at = time.monotonic()
        gui = client.gui
        self.trouble_text = gui.add_markdown("", visible=False)
        with gui.add_folder("Colours"):
            self._add_colours()
        with gui.add_folder("Picture"):
            self._add_picture()
        with gui.add_folder("Training views", expand_by_default=False):
            self._add_views()
        with gui.add_folder("Crop box", expand_by_default=False):
            self._add_crop()
        with gui.add_folder("Camera path", expand_by_default=False):
            self._add_path()
        self.window = self.studio.open(self)
        self._limit()
        self._moved()
        client.camera.on_update(self._moved)

    def leave(self) -> None:
        """It is gone."""
        self.previewing = False
        if self.filming is not None:
            self.filming.cancel()
        self.studio.close(self.window)

    # -- what the studio shows ----------------------------------------------------------------

    def picture(self, image: np.ndarray, frame: Frame, seconds: float) -> None:
        quality = 75 if frame.coarse else 95
        self.client.scene.set_background_image(image, format="jpeg", jpeg_quality=quality)
        now = time.monotonic()
        rate = f", {1 / max(now - self._shown_at, 1e-3):.0f} a second" if frame.coarse else ""
        self._shown_at = now
        state = "moving" if frame.coarse else "still"
        self.status.content = (
            f"{frame.width} x {frame.height}, {1000 * seconds:.0f} ms{rate} ({state})"
        )
        if self.trouble_text.visible:
            self.trouble_text.visible = False

    def part(self, image: np.ndarray) -> None:
        self.client.scene.set_background_image(image, format="jpeg", jpeg_quality=90)

    def trouble(self, words: str) -> None:
        self.say(f"**No picture:** {escaped(words)}")

    def say(self, markdown: str) -> None:
        """Shows a line above the controls."""
        self.trouble_text.content = markdown
        self.trouble_text.visible = True

    # -- controls -----------------------------------------------------------------------------

    def _add_colours(self) -> None:
        gui, choices, first = self.client.gui, self.exhibit.choices, self.exhibit.first
        self.style = self.second = self.share = self.strength = self.split = None
        self.encoder = self.decoder = None
        if choices.encoders:
            encoders, decoders = tuple(choices.encoders), tuple(choices.decoders)
            self.encoder = gui.add_dropdown("encoder", encoders, initial_value=first.encoder)
            self.decoder = gui.add_dropdown("decoder", decoders, initial_value=first.decoder)
        else:
            self.style = gui.add_dropdown("style", tuple(choices.styles), initial_value=first.style)
        if choices.mixes:
            others = (NOT_MIXED, *choices.styles)
            second = first.second or NOT_MIXED
            self.second = gui.add_dropdown("mixed with", others, initial_value=second)
            share = first.share or 0.5
            self.share = gui.add_slider(
                "its share", 0.0, 1.0, 0.01, share, visible=first.second is not None
            )
            self.second.on_update(self._second_changed)
        if choices.fades:
            self.strength = gui.add_slider("strength", 0.0, 1.0, 0.01, first.strength)
            hint = "so much of the picture, from the left, in photographic colours"
            self.split = gui.add_slider("split", 0.0, 1.0, 0.01, 0.0, hint=hint)
        controls = (self.second, self.share, self.strength, self.split, self.decoder)
        for control in controls:
            if control is not None:
                control.on_update(self._changed)
        for control in (self.encoder, self.style):
            if control is not None:
                control.on_update(self._move_in)

    def _add_picture(self) -> None:
        gui = self.client.gui
        self.channel = gui.add_dropdown("show", CHANNELS)
        background = tuple(round(255 * x) for x in self.scene.background.tolist())
        self.background = gui.add_rgb("background", background)
        hint = "pixels from top to bottom, at most"
        finest = max(1080, self._natural())
        self.finest = gui.add_slider("finest", 64, finest, 1, finest, hint=hint)
        self.status = gui.add_markdown("")
        screenshot = gui.add_button("screenshot")
        for control in (self.channel, self.background):
            control.on_update(self._changed)
        self.finest.on_update(lambda _: self._limit())
        screenshot.on_click(self._guarded(self._screenshot))

    def _add_views(self) -> None:
        gui = self.client.gui
        self.shows_views = gui.add_checkbox("show the cameras", True)
        self.views_text = gui.add_markdown("")
        self.photo = gui.add_image(np.zeros((1, 1, 3), np.uint8), visible=False)
        self.frusta: list[Any] = []
        self._place_frusta()
        self.shows_views.on_update(self._show_frusta)

    def _place_frusta(self) -> None:
        for frustum in self.frusta:
            frustum.remove()
        views = self.scene.train
        step = math.ceil(len(views) / MOST_FRUSTA)
        words = f"{len(views)} training views" + (f", every {step}th is shown" * (step > 1))
        self.views_text.content = f"{words}: click on one to go there"
        self.camera_size = size = camera_size(self.scene)
        self.frusta = [self._frustum(number, size) for number in range(0, len(views), step)]

    def _show_frusta(self, _: object = None) -> None:
        """All of them, or none; never those that the camera stands in, which hide the rest."""
        eye, size = np.asarray(self.client.camera.position), self.camera_size
        for frustum in self.frusta:
            apart = float(np.linalg.norm(np.asarray(frustum.position) - eye))
            visible = self.shows_views.value and apart > 2 * size
            if frustum.visible != visible:
                frustum.visible = visible

    def _frustum(self, number: int, size: float) -> Any:
        view = self.scene.train[number]
        frustum = self.client.scene.add_camera_frustum(
            f"/views/{number}",
            fov_of(view),
            view.width / view.height,
            scale=size,
            thickness=1.5,
            thickness_units="screen",
            variant="filled",
            color=GREY,
            wxyz=quaternion(view.c2w),
            position=tuple(view.c2w[:, 3].tolist()),
        )
        frustum.on_click(self._guarded(lambda: self._go_to_view(number)))
        return frustum

    def _add_crop(self) -> None:
        gui = self.client.gui
        self.crops = gui.add_checkbox("crop", False)
        self.crop_sliders: list[Any] = []
        self.crop_box: Any = None
        self._crop_container = gui.add_folder("corners")
        self._add_crop_sliders()
        self.crops.on_update(self._crop_changed)

    def _add_crop_sliders(self) -> None:
        for slider in self.crop_sliders:
            slider.remove()
        self.crop_sliders = []
        low, high = crop_range(self.scene)
        step = 10.0 ** math.floor(math.log10(float((high - low).max())) - 2)
        low, high = (low / step).floor() * step, (high / step).ceil() * step
        with self._crop_container:
            for axis, a, b in zip("xyz", low.tolist(), high.tolist(), strict=True):
                ends = float(f"{a:.3g}"), float(f"{b:.3g}")  # as they are written beside it
                slider = self.client.gui.add_multi_slider(axis, *ends, step, ends)
                self.crop_sliders.append(slider)
        for slider in self.crop_sliders:
            slider.on_update(self._crop_changed)

    def _crop_changed(self, _: object) -> None:
        if self.crop_box is not None:
            self.crop_box.remove()
            self.crop_box = None
        crop = self._crop()
        if crop is not None:
            low, high = np.array(crop[:3]), np.array(crop[3:])
            self.crop_box = self.client.scene.add_line_segments(
                "/crop", box_edges(low, high), BLUE, thickness=1.5, thickness_units="screen"
            )
        self._changed()

    def _add_path(self) -> None:
        gui, first = self.client.gui, self.scene.train[0]
        self.path_text = gui.add_markdown("")
        add = gui.add_button("add a keyframe")
        back = gui.add_button("remove the last one")
        self.n_frames = gui.add_number("frames", 60, min=2, max=MOST_FRAMES, step=1)
        self.fps = gui.add_number("a second", 15, min=1, max=60, step=1)
        self.closes = gui.add_checkbox("back to the first", False)
        size = {"min": 2, "max": LARGEST_SIDE, "step": 2}
        self.width = gui.add_number("width", first.width, **size)
        self.height = gui.add_number("height", first.height, **size)
        self.name = gui.add_text("name", self.scene.name or "path")
        self.preview_button = gui.add_button("preview")
        save = gui.add_button("save the path", hint="JSON, for eval.py --path")
        self.film_button = gui.add_button("render a video")
        self.film_bar = gui.add_progress_bar(0.0, visible=False)
        self.film_text = gui.add_markdown("")
        self.path_nodes: list[Any] = []
        add.on_click(self._guarded(self._add_keyframe))
        back.on_click(self._guarded(self._remove_keyframe))
        self.closes.on_update(self._guarded(self._draw_path))
        self.preview_button.on_click(self._guarded(self._preview))
        save.on_click(self._guarded(self._save_path))
        self.film_button.on_click(self._guarded(self._film))
        self._draw_path()

    # -- what they say ------------------------------------------------------------------------

    def _colours(self) -> Colours:
        second = None if self.second is None else self.second.value
        return Colours(
            style=value_of(self.style),
            second=None if second == NOT_MIXED else second,
            share=value_of(self.share, 0.0),
            strength=value_of(self.strength, 1.0),
            encoder=value_of(self.encoder),
            decoder=value_of(self.decoder),
        )

    def _pose(self) -> Pose:
        """Of the browser's camera, or the nearest one that sees the scene."""
        return self._browsers_pose().within_reach(self.scene)

    def _browsers_pose(self) -> Pose:
        camera = self.client.camera
        axes = Rotation.from_quat(np.roll(camera.wxyz, -1)).as_matrix() @ OPENCV
        c2w = np.concatenate([axes, np.asarray(camera.position)[:, None]], 1)
        return Pose(tuple(c2w.flatten().tolist()), float(camera.fov))

    def _crop(self) -> tuple[float, ...] | None:
        if not self.crops.value:
            return None
        ends = [slider.value for slider in self.crop_sliders]
        return (*(low for low, _ in ends), *(high for _, high in ends))

    def _look(self) -> Look:
        background = tuple(x / 255 for x in self.background.value)
        same = background == tuple(round(255 * x) / 255 for x in self.scene.background.tolist())
        return Look(
            pose=self._pose(),
            colours=self._colours(),
            channel=self.channel.value,
            split=value_of(self.split, 0.0),
            crop=self._crop(),
            background=None if same else background,
        )

    def _canvas(self) -> tuple[int, int]:
        camera = self.client.camera
        return max(1, camera.image_width), max(1, camera.image_height)

    def _natural(self) -> int:
        return OVERSAMPLING * max(view.height for view in self.scene.train)

    # -- what they do -------------------------------------------------------------------------

    def _changed(self, _: object = None) -> None:
        self.studio.show(self.window, self._look(), self._canvas())

    def _second_changed(self, _: object) -> None:
        self.share.visible = self.second.value != NOT_MIXED

    def _moved(self, _: object = None) -> None:
        pose = self._pose()
        if pose == self._browsers_pose():
            self._placed = True
        elif self._placed:  # before, the browser is still on its way to its first place
            self._hold(pose)
        self._changed()
        self._show_frusta()

    def _limit(self) -> None:
        self.studio.limit(self.window, self._natural(), int(self.finest.value))

    def _move_in(self, _: object) -> None:
        """Another field may have another scene."""
        scene = self.exhibit.scene(self._colours())
        if scene is self.scene:
            self._changed()
            return
        self.scene = scene
        self.photo.visible = False
        self.keyframes.clear()
        self._draw_path()
        self._place_frusta()
        self._add_crop_sliders()
        self.background.value = tuple(round(255 * x) for x in scene.background.tolist())
        self._limit()
        self._show_frusta()
        first = scene.train[0]
        self._go_to(Pose(tuple(first.c2w.flatten().tolist()), fov_of(first)))
        self._crop_changed(None)

    def _guarded(self, action: Callable[[], None]) -> Callable[[object], None]:
        """The action as a callback; what goes wrong in it is said on the page."""

        def callback(_: object) -> None:
            try:
                action()
            except Exception as error:  # nothing that a visitor does ends the program
                self.client.add_notification("That did not work", words_of(error), color="red")

        return callback

    def _go_to(self, pose: Pose) -> None:
        """Takes the camera there, as little tilted for whoever goes on turning it as can be."""
        c2w = torch.tensor(pose.c2w).view(3, 4)
        with self.client.atomic():
            self.client.camera.position = tuple(c2w[:, 3].tolist())
            self.client.camera.wxyz = quaternion(c2w)
            self.client.camera.fov = pose.fov
        self._moved()

    def _hold(self, pose: Pose) -> None:
        """Keeps a browser's camera that has gone too far there, upright as it is."""
        c2w, camera = torch.tensor(pose.c2w).view(3, 4), self.client.camera
        distance = float(np.linalg.norm(np.asarray(camera.look_at) - camera.position))
        with self.client.atomic():
            camera.position = tuple(c2w[:, 3].tolist())
            camera.look_at = tuple((c2w[:, 3] - distance * c2w[:, 2]).tolist())

    def _go_to_view(self, number: int) -> None:
        view = self.scene.train[number]
        self._go_to(Pose(tuple(view.c2w.flatten().tolist()), fov_of(view)))
        self.views_text.content = f"{escaped(view.name)}: its photo is being loaded"
        image = self.exhibit.photo(self._colours(), number)
        self.photo.visible = image is not None
        if image is None:
            self.views_text.content = (
                f"{escaped(view.name)}: its photo is not at hand; --root_dir says where they are"
            )
            return
        self.photo.image = image.numpy()
        self.views_text.content = f"{escaped(view.name)}: its photo"

    def _screenshot(self) -> None:
        width, height = self._canvas()
        height = max(2, min(height, int(self.finest.value)))
        width = max(2, round(height * self._canvas()[0] / self._canvas()[1]))
        pose = self._pose()
        camera = pose.camera(self.scene, width, height)
        file = unused(self._file(".png"))
        note = self.client.add_notification(
            "Screenshot", f"{width} x {height} pixels are being rendered", loading=True
        )
        try:
            (image,) = self.studio.send(film(self.studio, self._look(), camera, ignore)).result()
        finally:
            note.remove()
        write_image(file, image)
        self.client.send_file_download(file.name, file.read_bytes(), save_immediately=True)

    def _add_keyframe(self) -> None:
        pose = self._pose()
        if self.keyframes and pose == self.keyframes[-1]:
            raise UserError("the camera has not moved since the last keyframe; move it")
        self.keyframes.append(pose)
        self._draw_path()

    def _remove_keyframe(self) -> None:
        if self.keyframes:
            self.keyframes.pop()
        self._draw_path()

    def _draw_path(self) -> None:
        for node in self.path_nodes:
            node.remove()
        size, scene = self.camera_size, self.client.scene
        lines = {"thickness": 2.0, "thickness_units": "screen"}
        self.path_nodes = [
            scene.add_camera_frustum(
                f"/path/{number}",
                pose.fov,
                1.5,
                scale=size,
                color=ORANGE,
                wxyz=quaternion(torch.tensor(pose.c2w).view(3, 4)),
                position=pose.c2w[3::4],
                **lines,
            )
            for number, pose in enumerate(self.keyframes)
        ]
        count = len(self.keyframes)
        self.path_text.content = f"{count} keyframe{'s' * (count != 1)}" + (
            "" if count > 1 else ": move the camera, add one, move on"
        )
        if count > 1:
            ends = self._path(100).c2w[:, :, 3].numpy()
            segments = np.stack([ends[:-1], ends[1:]], 1)
            self.path_nodes.append(scene.add_line_segments("/path/line", segments, ORANGE, **lines))

    def _path(self, n_frames: int | None = None) -> Cameras:
        n_frames = n_frames or clamped(self.n_frames.value, 2, MOST_FRAMES)
        width, height = (clamped(x.value, 2, LARGEST_SIDE) for x in (self.width, self.height))
        closed = bool(self.closes.value)
        return along_keyframes(self.scene, self.keyframes, n_frames, width, height, closed)

    def _file(self, suffix: str) -> Path:
        """Where something is written: no path that comes from a browser is followed."""
        name = str(self.name.value)
        if not FILE_NAME.holds(name):
            raise UserError(f"name: {FILE_NAME.words}")
        return self.page.output_dir / f"{name}{suffix}"

    def _preview(self) -> None:
        if self.previewing:
            self.previewing = False
            return
        poses, before = poses_of(self._path()), self._pose()
        self.previewing, self.preview_button.label = True, "stop"
        start, fps = time.monotonic(), clamped(self.fps.value, 1, 60)
        try:
            while self.previewing:
                index = int((time.monotonic() - start) * fps)
                if index >= len(poses):
                    break
                self._go_to(poses[index])
                time.sleep(1 / fps)
        finally:
            self.previewing, self.preview_button.label = False, "preview"
            self._go_to(before)

    def _save_path(self) -> None:
        cameras, file = self._path(), self._file(".json")
        fps = clamped(self.fps.value, 1, 60)
        write_camera_path(file, cameras, fps, bool(self.closes.value))
        self.film_text.content = f"eval.py --path {escaped(str(file))}"
        self.client.send_file_download(file.name, file.read_bytes(), save_immediately=True)

    def _film(self) -> None:
        if self.filming is not None:
            self.filming.cancel()
            return
        cameras, file = self._path(), self._file(".mp4")
        start = time.monotonic()

        def progress(done: int, count: int) -> None:
            left = (time.monotonic() - start) / done * (count - done)
            self.film_bar.value = 100 * done / count
            self.film_text.content = f"{done} of {count} frames, {left:.0f} s left"

        self.film_button.label, self.film_bar.value, self.film_bar.visible = "stop", 0.0, True
        try:
            self.filming = self.studio.send(film(self.studio, self._look(), cameras, progress))
            frames = self.filming.result()
            write_film(file, frames, clamped(self.fps.value, 1, 60))
            self.film_text.content = f"written: {escaped(str(file))}"
            self.client.send_file_download(file.name, file.read_bytes(), save_immediately=True)
        except CancelledError:
            self.film_text.content = "stopped"
        finally:
            self.filming, self.film_button.label = None, "render a video"
            self.film_bar.visible = False


# -- small things -------------------------------------------------------------------------------


def require_address(host: str) -> None:
    """Raises a `UserError` where the machine has no such address: viser would wait for ever."""
    try:
        with socket.create_server((host, 0), family=_family(host)):
            pass
    except OSError as error:
        raise UserError(
            f"--host {host}: no address of this machine ({error.strerror or error}); give "
            "127.0.0.1, or 0.0.0.0 for all that it has"
        ) from None


@contextlib.contextmanager
def for_own_pages_alone(host: str) -> Iterator[None]:
    """Servers that viser starts meanwhile refuse what comes from another site's page: a browser
    tells in `Origin` whose page it is that connects.  viser has no option for it, so this is put
    between it and the server that it uses."""
    from websockets.asyncio import server

    serve = server.serve

    def guarded(*args: Any, process_request: Callable, **options: Any) -> Any:
        def answer(connection: Any, request: Any) -> Any:
            if not is_own(request.headers.get("Origin"), request.headers.get("Host"), host):
                return connection.respond(HTTPStatus.FORBIDDEN, "from another site's page\n")
            return process_request(connection, request)

        return serve(*args, process_request=answer, **options)

    server.serve = guarded
    try:
        yield
    finally:
        server.serve = serve


def is_own(origin: str | None, asked: str | None, host: str) -> bool:
    """Whether a request comes from no page, or from one of this server's.

    Args:
        origin, asked: the request's `Origin` and `Host`.
        host: where the page is served; for this machine alone, names of it are the only ones.
    """
    if origin is None:
        return True
    try:
        page = urlsplit(origin)
        if host in LOOPBACK:
            return page.hostname in LOOPBACK
    except ValueError:  # no address
        return False
    return bool(page.netloc) and page.netloc == asked


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def focus_distance(scene: Scene) -> float:
    """How far training cameras are from what they look at, scene units."""
    return float(look_at_ball(torch.stack([view.c2w for view in scene.train]))[1])


def camera_size(scene: Scene) -> float:
    """Of a training camera on the page, scene units: where they stand close together, as in a
    forward-facing scene, large ones would hide what they look at."""
    largest = FRUSTUM * focus_distance(scene)
    places = torch.stack([view.c2w[:, 3] for view in scene.train])
    gaps = torch.cdist(places, places).fill_diagonal_(math.inf).amin(1)
    return min(largest, max(GAP * float(gaps.median()), largest / 10))


def crop_range(scene: Scene) -> Tensor:
    """(2, 3) corners in the world of the largest crop box."""
    bounds = scene.bounds.clone().cpu()
    if scene.space.forward_facing:  # in NDC, where it reaches to infinity
        end = scene.space.from_world(torch.tensor([0.0, 0.0, -CROP_DEPTH]))[2]
        bounds[1, 2] = torch.minimum(bounds[1, 2], end)
    return scene.space.world_box(bounds)


def box_edges(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(12, 2, 3) the edges of a box."""
    corners = [np.where([i & 1, i & 2, i & 4], high, low) for i in range(8)]
    pairs = [(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit]
    return np.array([(corners[a], corners[b]) for a, b in pairs])


def quaternion(c2w: Tensor) -> tuple[float, ...]:
    """w, x, y, z of a camera-to-world (3, 4) in viser's axes."""
    axes = c2w[:, :3].double().numpy() @ OPENCV
    return tuple(np.roll(Rotation.from_matrix(axes).as_quat(), 1).tolist())


def fov_of(view: View) -> float:
    """Vertical field of view, radians."""
    return 2 * math.atan(view.height / 2 / view.fy)


def value_of(control: Any, default: Any = None) -> Any:
    """The value of a control that may be missing."""
    return default if control is None else control.value


def clamped(value: float, low: int, high: int) -> int:
    """A number from a browser, which may be any, as a whole one in a range."""
    return low if not math.isfinite(value) else int(min(max(value, low), high))


def unused(file: Path) -> Path:
    """The file, or one with a number, that is not there yet."""
    number, found = 1, file
    while found.exists():
        number += 1
        found = file.with_name(f"{file.stem}_{number}{file.suffix}")
    return found


def escaped(text: str) -> str:
    """A text as Markdown shows it."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+!|" else c for c in text)


def ignore(done: int, count: int) -> None:
    """Progress that nobody is shown."""
