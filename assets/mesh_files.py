"""Coloured meshes as PLY, OBJ and GLB, with what their numbers mean written inside."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from assets.mesh import Mesh
from utils.files import replacing

FLOAT, UNSIGNED_INT = 5126, 5125  # glTF's names of component types
VERTICES, INDICES = 34962, 34963  # glTF's names of buffer targets


def write_mesh(path: Path, mesh: Mesh, notes: dict[str, str], unlit: bool = False) -> None:
    """Writes a coloured mesh in the format that the extension names: .ply, .obj or .glb.

    Args:
        path: the file.
        mesh: with colours.
        notes: comments on the file, for example its axes.
        unlit: GLB: with a material that shows the colours as they are, without lighting.

    Raises:
        UserError: the file cannot be written.
    """
    content = {
        ".ply": lambda: ply(mesh, notes),
        ".obj": lambda: obj(mesh, notes).encode(),
        ".glb": lambda: glb(mesh, notes, unlit),
    }[path.suffix]()
    with replacing(path) as partial:
        partial.write_bytes(content)


def ply(mesh: Mesh, notes: dict[str, str]) -> bytes:
    """Binary little-endian PLY: float x y z nx ny nz, uchar red green blue (sRGB), int triples."""
    vertex = np.dtype([("position", "<f4", 6), ("colour", "u1", 3)])
    face = np.dtype([("count", "u1"), ("vertices", "<i4", 3)])
    vertices, faces = np.empty(len(mesh.vertices), vertex), np.empty(len(mesh.faces), face)
    vertices["position"] = np.concatenate([mesh.vertices, mesh.normals()], 1)
    vertices["colour"] = eight_bit(mesh.colours)
    faces["count"], faces["vertices"] = 3, mesh.faces
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment {name}: {text}" for name, text in notes.items()]
    lines += [f"element vertex {len(vertices)}"]
    lines += [f"property float {name}" for name in ("x", "y", "z", "nx", "ny", "nz")]
    lines += [f"property uchar {name}" for name in ("red", "green", "blue")]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    return "\n".join([*lines, ""]).encode() + vertices.tobytes() + faces.tobytes()


def obj(mesh: Mesh, notes: dict[str, str]) -> str:
    """OBJ whose `v` lines have red green blue in [0, 1] (sRGB) after x y z, as is customary."""
    lines = [f"# {name}: {text}" for name, text in notes.items()]
    rows = np.concatenate([mesh.vertices, mesh.colours], 1).tolist()
    lines += ["v {:.7g} {:.7g} {:.7g} {:.4f} {:.4f} {:.4f}".format(*row) for row in rows]
    lines += ["vn {:.4f} {:.4f} {:.4f}".format(*row) for row in mesh.normals().tolist()]
    lines += ["f {0}//{0} {1}//{1} {2}//{2}".format(*row) for row in (mesh.faces + 1).tolist()]
    return "\n".join([*lines, ""])


def glb(mesh: Mesh, notes: dict[str, str], unlit: bool) -> bytes:
    """Binary glTF 2.0; colours are linear there, as its section 3.7.2.1 demands of COLOR_0."""
    vertices = mesh.vertices.astype("<f4")
    blocks = {
        "POSITION": vertices,
        "NORMAL": mesh.normals().astype("<f4"),
        "COLOR_0": linear(mesh.colours).astype("<f4"),
        "indices": mesh.faces.astype("<u4").reshape(-1),
    }
    views, accessors, start = [], [], 0
    for name, block in blocks.items():
        index = name == "indices"
        views.append({"buffer": 0, "byteOffset": start, "byteLength": block.nbytes})
        views[-1]["target"] = INDICES if index else VERTICES
        accessors.append({"bufferView": len(views) - 1, "count": len(block)})
        accessors[-1]["componentType"] = UNSIGNED_INT if index else FLOAT
        accessors[-1]["type"] = "SCALAR" if index else "VEC3"
        start += block.nbytes
    accessors[0]["min"], accessors[0]["max"] = (
        vertices.min(0).tolist(),
        vertices.max(0).tolist(),
    )
    attributes = {name: i for i, name in enumerate(blocks) if name != "indices"}
    primitive = {"attributes": attributes, "indices": len(blocks) - 1}
    tree = {
        "asset": {"version": "2.0", "generator": "export.py", "extras": notes},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "mesh"}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": start}],
    }
    if unlit:
        primitive["material"] = 0
        plain = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        extension = "KHR_materials_unlit"
        tree["materials"] = [{"pbrMetallicRoughness": plain, "extensions": {extension: {}}}]
        tree["extensionsUsed"] = [extension]
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    binary = b"".join(block.tobytes() for block in blocks.values())
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def eight_bit(colours: np.ndarray) -> np.ndarray:
    """8-bit levels of colours in [0, 1]."""
    return np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)


def linear(colours: np.ndarray) -> np.ndarray:
    """Linear light of sRGB colours in [0, 1] (IEC 61966-2-1)."""
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
