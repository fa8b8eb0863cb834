"""The numbers behind an affect, in one place: action units, expressions, circumplex. Data only.

Sources
-------
FACS     P. Ekman, W. V. Friesen, J. C. Hager, *Facial Action Coding System*, 2nd ed., 2002: units and what
         they move.
EMFACS   W. V. Friesen, P. Ekman, *EMFACS-7: Emotional Facial Action Coding System*, 1983, and the table of
         prototypes in the FACS Investigator's Guide (2002), ch. 12: which units make which expression.
ARKit    Apple, *ARFaceAnchor.BlendShapeLocation*: the 52 names and what each coefficient moves.
Scherer  K. R. Scherer, "What are emotions? And how can they be measured?", Social Science Information 44(4),
         2005, fig. 1: the circumplex of Russell (1980) with the positions of single terms;
P&T      read as numbers by G. Paltoglou, M. Thelwall, "Seeing Stars of Valence and Arousal in Blog Posts",
         IEEE Trans. Affective Computing 4(1), 2013.

A shape named without a side (``mouthSmile``) stands for both sides at the same weight.
"""

from __future__ import annotations

from typing import Final

#: Coefficients that ARKit gives for each side of the face; the name on the face ends in Left or Right.
SIDED_SHAPES: Final = (
    "browDown", "browOuterUp", "cheekSquint", "eyeBlink", "eyeLookDown", "eyeLookIn", "eyeLookOut",
    "eyeLookUp", "eyeSquint", "eyeWide", "mouthDimple", "mouthFrown", "mouthLowerDown", "mouthPress",
    "mouthSmile", "mouthStretch", "mouthUpperUp", "noseSneer",
)  # fmt: skip

#: Coefficients that ARKit gives once for the whole face.
CENTRAL_SHAPES: Final = (
    "browInnerUp", "cheekPuff", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthFunnel",
    "mouthLeft", "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthShrugUpper", "tongueOut",
)  # fmt: skip

#: All 52 ARKit names, sorted: the order of every internal coefficient vector.
SHAPES: Final[tuple[str, ...]] = tuple(
    sorted([*CENTRAL_SHAPES, *(shape + side for shape in SIDED_SHAPES for side in ("Left", "Right"))])
)

#: Action unit → (FACS name, {ARKit shape: weight at AU intensity 1}). Where two units of one face ask for the
#: same shape the larger demand wins, so that AU25 adds nothing to lips already parted by AU10 or AU16, and
#: AU26 nothing to the AU27 it is a weaker form of, which is how FACS scores them. Left out, because no
#: ARKit-named shape moves what they move: AU21 (neck), AU31 (masseter), AU35 to AU37 (cheeks sucked in,
#: tongue in cheek or on lip), AU38 and AU39 (nostrils). The head's own units stand in ``HEAD_UNITS``.
ACTION_UNITS: Final[dict[str, tuple[str, dict[str, float]]]] = {
    "AU1": ("inner brow raiser", {"browInnerUp": 1.0}),
    "AU2": ("outer brow raiser", {"browOuterUp": 1.0}),
    "AU4": ("brow lowerer", {"browDown": 1.0}),
    "AU5": ("upper lid raiser", {"eyeWide": 1.0}),
    "AU6": ("cheek raiser", {"cheekSquint": 1.0, "eyeSquint": 0.3}),
    "AU7": ("lid tightener", {"eyeSquint": 1.0}),
    "AU8": ("lips toward each other", {"jawOpen": 0.25, "mouthClose": 0.25}),
    "AU9": ("nose wrinkler", {"noseSneer": 1.0, "browDown": 0.2, "mouthUpperUp": 0.15}),
    "AU10": ("upper lip raiser", {"mouthUpperUp": 1.0}),
    "AU11": ("nasolabial deepener", {"mouthUpperUp": 0.35, "cheekSquint": 0.3, "noseSneer": 0.15}),
    "AU12": ("lip corner puller", {"mouthSmile": 1.0}),
    "AU13": ("sharp lip puller", {"mouthSmile": 0.45, "cheekPuff": 0.3, "cheekSquint": 0.3}),
    "AU14": ("dimpler", {"mouthDimple": 1.0, "mouthPress": 0.3}),
    "AU15": ("lip corner depressor", {"mouthFrown": 1.0}),
    "AU16": ("lower lip depressor", {"mouthLowerDown": 1.0}),
    "AU17": ("chin raiser", {"mouthShrugLower": 1.0}),
    "AU18": ("lip pucker", {"mouthPucker": 1.0}),
    "AU19": ("tongue show", {"tongueOut": 1.0, "jawOpen": 0.35}),
    "AU20": ("lip stretcher", {"mouthStretch": 1.0}),
    "AU22": ("lip funneler", {"mouthFunnel": 1.0}),
    "AU23": ("lip tightener", {"mouthPress": 0.5, "mouthRollLower": 0.3, "mouthRollUpper": 0.3}),
    "AU24": ("lip pressor", {"mouthPress": 1.0}),
    "AU25": ("lips part", {"mouthLowerDown": 0.3, "mouthUpperUp": 0.12, "jawOpen": 0.05}),
    "AU26": ("jaw drop", {"jawOpen": 0.6}),
    "AU27": ("mouth stretch", {"jawOpen": 1.0}),
    "AU28": ("lip suck", {"mouthRollLower": 1.0, "mouthRollUpper": 1.0}),
    "AU29": ("jaw thrust", {"jawForward": 1.0}),
    "AU30": ("jaw sideways", {"jawLeft": 1.0, "jawRight": 1.0}),
    "AU32": ("lip bite", {"mouthRollLower": 1.0, "jawOpen": 0.08, "mouthUpperUp": 0.25}),
    "AU33": ("cheek blow", {"cheekPuff": 0.7, "mouthFunnel": 0.25, "mouthPucker": 0.25}),
    "AU34": ("cheek puff", {"cheekPuff": 1.0}),
    "AU41": ("lid droop", {"eyeBlink": 0.35}),
    "AU42": ("slit", {"eyeBlink": 0.6, "eyeSquint": 0.3}),
    "AU43": ("eyes closed", {"eyeBlink": 1.0}),
    "AU44": ("squint", {"eyeSquint": 1.0, "cheekSquint": 0.4, "browDown": 0.3, "eyeBlink": 0.25}),
    "AU45": ("blink", {"eyeBlink": 1.0}),
    "AU46": ("wink", {"eyeBlink": 1.0, "cheekSquint": 0.25}),
    "AU61": ("eyes turn left", {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0}),
    "AU62": ("eyes turn right", {"eyeLookInLeft": 1.0, "eyeLookOutRight": 1.0}),
    "AU63": ("eyes up", {"eyeLookUp": 1.0}),
    "AU64": ("eyes down", {"eyeLookDown": 1.0}),
    "AU65": ("walleye", {"eyeLookOutLeft": 0.7, "eyeLookOutRight": 0.7}),
    "AU66": ("cross-eye", {"eyeLookInLeft": 0.9, "eyeLookInRight": 0.9}),
}

#: Units of one side at a time: AU30L moves the jaw to the subject's left, AU46R winks the right eye.
ONE_SIDED_UNITS: Final = ("AU30", "AU46")

#: The head's action units → (FACS name, what turns, how far at intensity 1): degrees, or millimetres for
#: "forward_mm". FACS scores them A to E without angles; these ends are those of an easy turn of the head.
HEAD_UNITS: Final[dict[str, tuple[str, str, float]]] = {
    "AU51": ("head turn left", "yaw_deg", 30.0),
    "AU52": ("head turn right", "yaw_deg", -30.0),
    "AU53": ("head up", "pitch_deg", 20.0),
    "AU54": ("head down", "pitch_deg", -20.0),
    "AU55": ("head tilt left", "roll_deg", 20.0),
    "AU56": ("head tilt right", "roll_deg", -20.0),
    "AU57": ("head forward", "forward_mm", 60.0),
    "AU58": ("head back", "forward_mm", -60.0),
}

#: The shape by which a unit is read back from a face: the one that no other unit moves more. AU25 to AU28
#: follow rules of their own in ``action_units.read_action_units``, as do jaw and gaze. Not told from others
#: in a still face: AU8, AU11, AU13, AU23, AU32, AU33, AU41, AU42 and AU44 to AU46.
PRIMARY_SHAPE: Final[dict[str, str]] = {
    "AU1": "browInnerUp", "AU2": "browOuterUp", "AU4": "browDown", "AU5": "eyeWide", "AU6": "cheekSquint",
    "AU7": "eyeSquint", "AU9": "noseSneer", "AU10": "mouthUpperUp", "AU12": "mouthSmile", "AU14":
    "mouthDimple", "AU15": "mouthFrown", "AU16": "mouthLowerDown", "AU17": "mouthShrugLower", "AU18":
    "mouthPucker", "AU19": "tongueOut", "AU20": "mouthStretch", "AU22": "mouthFunnel", "AU24": "mouthPress",
    "AU29": "jawForward", "AU34": "cheekPuff", "AU43": "eyeBlink", "AU63": "eyeLookUp", "AU64": "eyeLookDown",
}  # fmt: skip

#: What a caller can ask for by name, and what a label can say besides "neutral".
EXPRESSIONS: Final = ("anger", "contempt", "disgust", "fear", "happy", "sad", "surprise")

#: Two further points of the circumplex, so that low arousal is a face too. Reached through valence and
#: arousal only.
SUPPORTS: Final = ("content", "tired")

#: EMFACS: the units that must show for the expression to be that expression. A test holds the prototypes
#: below to it.
EMFACS_CORE: Final[dict[str, tuple[str, ...]]] = {
    "anger": ("AU4", "AU5", "AU7"),
    "contempt": ("AU12R", "AU14R"),
    "disgust": ("AU9", "AU10"),
    "fear": ("AU1", "AU2", "AU4", "AU5", "AU20"),
    "happy": ("AU6", "AU12"),
    "sad": ("AU1", "AU4", "AU15"),
    "surprise": ("AU1", "AU2", "AU5", "AU26"),
}

#: Valence and arousal of each at intensity 1 (P&T, from Scherer; the term they print in brackets).
CIRCUMPLEX: Final[dict[str, tuple[float, float]]] = {
    "happy": (0.89, 0.17),  # (happy)
    "surprise": (0.42, 0.88),  # (astonished)
    "fear": (-0.12, 0.79),  # (afraid)
    "anger": (-0.40, 0.79),  # (angry)
    "contempt": (-0.57, 0.66),  # (contemptuous)
    "disgust": (-0.67, 0.49),  # (disgusted)
    "sad": (-0.81, -0.40),  # (sad)
    "tired": (-0.02, -0.98),  # (tired)
    "content": (0.81, -0.55),  # (content)
}

#: Expression prototypes: the face at intensity 1, strong but human, per family of head models. They are
#: EMFACS prototypes written in ARKit names and tuned by eye and by judges on portraits. An unknown family
#: uses "default".
PROTOTYPES: Final[dict[str, dict[str, dict[str, float]]]] = {
    "default": {
        "anger": {
            "browDown": 1.0, "mouthLowerDown": 1.0, "mouthFrown": 0.55, "mouthFunnel": 0.5,
            "mouthUpperUp": 0.48, "eyeWide": 0.46, "eyeSquint": 0.28, "noseSneer": 0.27, "jawOpen": 0.13,
            "mouthRollUpper": 0.1, "mouthStretch": 0.08,
        },
        "contempt": {
            "mouthSmileRight": 0.5, "mouthDimpleRight": 0.8, "mouthPressRight": 0.3,
            "cheekSquintRight": 0.25, "mouthUpperUpRight": 0.1, "eyeSquint": 0.2, "browDown": 0.12,
        },
        "disgust": {
            "mouthUpperUp": 0.82, "noseSneer": 0.7, "eyeSquint": 0.55, "cheekSquint": 0.4, "browDown": 0.2,
            "mouthShrugLower": 0.1, "mouthShrugUpper": 0.1, "jawOpen": 0.05,
        },
        "fear": {
            "browInnerUp": 1.0, "mouthLowerDown": 0.82, "eyeWide": 0.7, "mouthStretch": 0.7,
            "jawOpen": 0.36, "browDown": 0.35, "mouthFrown": 0.35, "mouthFunnel": 0.15, "browOuterUp": 0.12,
            "mouthRollUpper": 0.1, "mouthUpperUp": 0.08,
        },
        "happy": {
            "mouthSmile": 1.0, "mouthDimple": 0.42, "mouthUpperUp": 0.36, "cheekSquint": 0.3,
            "mouthLowerDown": 0.3, "mouthPress": 0.3, "eyeSquint": 0.2, "mouthRollLower": 0.12,
            "jawOpen": 0.06,
        },
        "sad": {
            "browInnerUp": 0.95, "mouthFrown": 0.8, "mouthShrugLower": 0.78, "browDown": 0.42,
            "mouthStretch": 0.25, "eyeBlink": 0.25, "eyeSquint": 0.15,
        },
        "surprise": {
            "browOuterUp": 0.85, "browInnerUp": 0.6, "eyeWide": 0.6, "jawOpen": 0.5, "mouthFunnel": 0.22,
        },
        "content": {
            "eyeBlink": 0.35, "mouthSmile": 0.22, "cheekSquint": 0.1, "mouthDimple": 0.1,
        },
        "tired": {
            "eyeBlink": 0.55, "browInnerUp": 0.1, "mouthFrown": 0.08,
        },
    },
    "ict": {
        "anger": {
            "browDown": 1.0, "mouthLowerDown": 1.0, "mouthFunnel": 0.55, "noseSneer": 0.5, "eyeWide": 0.4,
            "eyeSquint": 0.4, "mouthUpperUp": 0.22, "mouthRollUpper": 0.1, "mouthFrown": 0.05,
        },
        "contempt": {
            "mouthSmileRight": 0.45, "mouthDimpleRight": 0.8, "mouthPressRight": 0.3,
            "cheekSquintRight": 0.25, "mouthUpperUpRight": 0.1, "eyeSquint": 0.2, "browDown": 0.15,
        },
        "disgust": {
            "noseSneer": 1.0, "cheekSquint": 0.55, "mouthFrown": 0.53, "eyeSquint": 0.4,
            "mouthUpperUp": 0.22, "mouthLowerDown": 0.18, "browDown": 0.16, "mouthFunnel": 0.16,
        },
        "fear": {
            "browInnerUp": 0.95, "mouthStretch": 0.86, "mouthLowerDown": 0.8, "eyeWide": 0.7,
            "browDown": 0.45, "jawOpen": 0.36, "mouthFrown": 0.35, "mouthFunnel": 0.25, "browOuterUp": 0.12,
        },
        "happy": {
            "mouthSmile": 0.82, "cheekSquint": 0.4, "mouthUpperUp": 0.25, "eyeSquint": 0.15,
            "mouthLowerDown": 0.1, "mouthDimple": 0.1, "jawOpen": 0.08,
        },
        "sad": {
            "browInnerUp": 0.95, "mouthFrown": 0.75, "mouthShrugLower": 0.75, "browDown": 0.42,
            "eyeSquint": 0.2, "eyeBlink": 0.18, "cheekSquint": 0.1,
        },
        "surprise": {
            "browOuterUp": 0.97, "eyeWide": 0.7, "browInnerUp": 0.68, "jawOpen": 0.58, "mouthFunnel": 0.42,
            "mouthLowerDown": 0.1, "mouthUpperUp": 0.1,
        },
        "content": {
            "eyeBlink": 0.35, "mouthSmile": 0.22, "cheekSquint": 0.1, "mouthDimple": 0.1,
        },
        "tired": {
            "eyeBlink": 0.55, "browInnerUp": 0.1, "mouthFrown": 0.08,
        },
    },
}  # fmt: skip

#: How much of the prototype shows at intensity 0.6, the everyday expression; 0.6 is a straight line. The
#: curve through (0, 0), (0.6, this), (1, 1) is a parabola, monotone while this lies in [0.36, 0.84].
EVERYDAY: Final[dict[str, dict[str, float]]] = {
    "default": {"happy": 0.62},
    "ict": {},
}
