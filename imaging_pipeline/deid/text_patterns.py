"""What identifies somebody in running text by its form: addresses, numbers with a label, titles, institutions.

Owns the patterns of English, German and French reports. Contains no patient's identifiers and no replacement of text.
Kinds follow the identifiers of 45 CFR 164.514(b)(2) and the places PS3.15 E.3.9 (Clean Descriptors) names.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


NAME_PART: Final = r"[^\W\d_](?:[^\W\d_]|['\u2019.-](?=[^\W\d_]))*"
"""One word of a name, with its apostrophes and hyphens."""

PARTICLES: Final = words(
    "von van der den de du des la le di da dos del ter ten zu zur vom el al bin ibn mc mac st san o d l und "
    "and et dr drs prof pd priv doz med dent univ rer nat habil dipl frau herr herrn mr mrs ms mme"
)
"""Small words that belong to names between their parts."""

_LABELLED: Final = (
    r"(?:MRN|M\.R\.N|PID|PatID|Pat[-_. ]?(?:ID|Nr|No)|Patient(?:en)?[-_ ]?(?:ID|Nr|No|Nummer|number|identifier)|IPP|NIP"
    r"|NDA|NHS|SSN|SIN|NIR|AHV|EGK|KVNR|INS|HCN|CHI|DOSSIER|Fall[-_ ]?(?:ID|Nr|Nummer)|Aufnahme(?:nr|nummer)"
    r"|Auftrag(?:s)?(?:nr|nummer)|Vers(?:icherungs|icherten)?[-.]?(?:nr|nummer)|Acc(?:ession)?|ACSN|Chart|Record"
    r"|Medical\s+record"
    r"|Account|Acct|Policy|Insurance|Licen[cs]e|DEA|NPI|Passport|Badge|Pager|Beeper|Serial|S/N|Encounter|CSN|EMPI"
    r"|GUID|ID|IDs)"
)
_COUNTED: Final = (
    r"(?:Order|Req(?:uest)?|Visit|Case|Hosp(?:ital)?|Member|Device|Station|Study|Exam(?:ination)?|Specimen|Slide"
    r"|Block|Enc|FIN|HAR|Lic"
    r"|Patient|Pat|Subject|Proband|Participant|Fall|Auftrag|Untersuchung|Dossier|Examen)"
)
_NUMBER_WORD: Final = r"(?:\s*(?:ID|Nr|No|Num|Number|Nummer|N°|Nº|#|code)(?![^\W\d_])\.?)"
_UNIT: Final = r"\s*(?:mm|cm|m\b|ms|s\b|ml|mg|mA|kV|x\b|Hz|MHz|HU|%)"
_VALUE: Final = rf"[\s:#=.°º-]*[A-Z]{{0,6}}[-_/.]?\d[\w./-]*(?: \d+(?![\w.,/]|{_UNIT})){{0,4}}"

_PHONE_LABEL: Final = (
    r"(?:tel|telephone|telefon|téléphone|tél|phone|ph|fax|mobile|mobil|handy|portable|cell|call(?:ed)?|pager"
    r"|beeper|ext|x|"
    r"durchwahl|dw|poste|bip|dect|funk)"
)
_TITLE: Final = (
    r"(?:Dres|Drs|Dr|Doctor|Doktor|Docteur|Dra|Prof|Professor|Professeur|Mrs|Mr|Ms|Miss|Mister|Mme|Mlle|Mdm|Madame"
    r"|Monsieur|Herrn|Herr|Frau|Fr|Hr|Sr|Sra|Sig|Signor|Signora|PD|OA|OÄ|CA|Chefarzt|Oberarzt|Oberärztin"
    r"|Assistenzarzt|Nurse|Sister"
    r"|Schwester|Pfleger|Sgt|Capt|Rev|Sir|Dame|Lord|Lady|Pt\.?\s*name|Patient\s*name|Name|Nom|Prénom|Vorname"
    r"|Nachname|Familienname"
    r"|Surname|Attn|Attention|c/o|PhD|M)"
)
_ROLE: Final = (
    r"(?:radiologist|technologist|technician|tech|operator|physician|surgeon|consultant|resident|fellow|attending"
    r"|registrar"
    r"|sonographer|radiographer|nurse|midwife|anesthetist|anaesthetist|referrer|requester|author|reader"
    r"|transcriptionist"
    r"|observer|performer|GP|PCP|MTRA|MTA|MTR|Arzt|Ärztin|Untersucher(?:in)?|Befunder(?:in)?|Zuweiser(?:in)?|Einweiser"
    r"|Überweiser(?:in)?|Radiologe|Radiologin|Hausarzt|médecin|prescripteur|manipulat(?:eur|rice)|radiologue|opérateur"
    r"|correspondant|chirurgien|interne|next\s+of\s+kin|contact|mother|father|wife|husband|son|daughter|spouse|guardian"
    r"|employer|initials|Mutter|Vater|Ehefrau|Ehemann|Sohn|Tochter|user|username|login|signed|signature|gez|i\.A)"
)
_BY: Final = (
    r"(?:(?:read|dictated|reported|performed|reviewed|interpreted|ordered|requested|referred|ref|signed|approved"
    r"|verified|"
    r"transcribed|entered|scanned|done|seen|examined|checked|confirmed|acquired|annotated|drawn|contoured|marked"
    r"|prepared|"
    r"assisted|supervised|authori[sz]ed|electronically\s+signed|discussed|communicated|notified|spoken|called|relayed)"
    r"\s*(?:\.|-)?\s*(?:by|with|to|from|via)|ref\.?\s*(?:dr|phys|md|by)?\s*[:.]|p\.p\.|per|ref|befundet\s+von"
    r"|überwiesen\s+von"
    r"|zugewiesen\s+von|erstellt\s+von|diktiert\s+von|gelesen\s+von|untersucht\s+von|freigegeben\s+von"
    r"|vidiert\s+von|durch"
    r"|lu\s+par|adressée?\s+par|prescrit\s+par|réalisée?\s+par|validée?\s+par|interprétée?\s+par|dicté\s+par"
    r"|signé\s+par|cc:|d/w|copy\s+to|copies\s+to|report\s+to|sent\s+to)"
)
_DEGREE: Final = (
    r"(?:M\.?D|D\.?O|R\.?N|Ph\.?D|F\.?R\.?C\.?R|FACR|R\.?T\.?\(?R\)?|RDMS|RDCS|DDS|DVM|PA-C|NP|M\.?B\.?B\.?S|MBChB"
    r"|FRANZCR"
    r"|Esq|Jr|MTRA|MSc|BSc|CNMT|ARRT)"
)
_STREET: Final = r"(?:street|road|avenue|lane|drive|boulevard|terrace|highway|parkway|alley)"
_STREET_SHORT: Final = (
    r"(?:st|rd|ave|ln|dr(?=\.)|blvd|ct(?=\.)|court|square|hwy|pkwy|crescent|close|row|pl|place|way|circle|trail)"
)
_STREET_DE: Final = (
    r"[^\W\d_]+(?:stra(?:ß|ss)e|str|weg|gasse|allee|platz|damm|ufer|ring|chaussee|steig|straat|laan|gracht)\b\.?"
    r"|[^\W\d_]+[\s-](?:Straße|Strasse|Str\.|Weg|Gasse|Allee|Platz|Damm|Ufer|Ring)"
)
_STREET_FR: Final = r"(?:rue|avenue|boulevard|bd|allée|chemin|impasse|quai|faubourg|calle|rua|viale|piazza)"
_STREET_FR_COUNTED: Final = r"(?:av|place|route|cours|square|via|passage|villa)"
_COUNT_WORD: Final = (
    r"(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|null|eins|zwei|drei|vier|fünf"
    r"|sechs|sieben|acht"
    r"|neun|zehn|zéro|un|deux|trois|quatre|cinq|sept|huit|neuf|dix)"
)
_PLACE_LABEL: Final = (
    r"(?:room|rm|bed|ward|bay|bldg|building|floor|suite|ste|apt|cubicle|locker|zimmer|zi|bett|(?<!node )"
    r"(?<!nodal )station"
    r"(?!\s*\d+[a-z]?\s*(?:lymph|node|nod|ln))|gebäude|etage|haus|chambre|lit|étage|bât(?:iment)?|service|porte|box"
    r"|p\.?\s?o\.?\s?box|postfach|b\.p\.?)"
)
_INSTITUTION: Final = (
    r"(?:hospitals?|hospice|clinics?|infirmary|medical\s+(?:cent(?:er|re)|college|school|group)|health\s*care"
    r"|health\s+(?:system|"
    r"cent(?:er|re)|network|services?|trust)|healthcare|nhs(?:\s+(?:foundation\s+)?trust)?|university|college"
    r"|institutes?|"
    r"imaging\s+(?:cent(?:er|re)|associates|partners|group)|radiology\s+(?:associates|partners|group|consultants"
    r"|practice)|surgery\s+"
    r"cent(?:er|re)|cancer\s+cent(?:er|re)|sanatorium|polyclinic|nursing\s+home|associates|llc|inc|ltd|gmbh|"
    r"klinik(?:um|en)?|kliniken|krankenhaus|spital|hospital|praxis|gemeinschaftspraxis|poliklinik|mvz|ambulatorium"
    r"|institut|"
    r"universität|charité|stift|diakonie|caritas|"
    r"h[oô]pita(?:l|ux)|clinique|centre\s+(?:hospitalier(?:\s+(?:universitaire|régional))?|médical|de\s+santé"
    r"|d['\u2019]imagerie)|chu|chru|chr|"
    r"cabinet|polyclinique|universit[ée]|maison\s+de\s+santé|ziekenhuis|ospedale|policlinico|clínica|clinica|azienda)"
)

INSTITUTION_WORDS: Final = words(
    "general memorial st saint sainte county city regional community central district national royal state "
    "veterans va children childrens good holy sacred mercy trinity northern southern eastern western north "
    "south east west new grand university teaching academic medical health heart cancer women womens men "
    "military army navy federal public private presbyterian methodist baptist lutheran catholic jewish "
    "evangelical our lady queen king prince princess mount valley lake river park hill green bay coast view "
    "island town universitatsklinikum universitats stadtisches stadtische evangelisches katholisches marien "
    "elisabeth barmherzige bruder rotes kreuz allgemeines kreis bundeswehr the des der die das du de la le les "
    "of and und et for fur pour notre dame center centre regional"
)
"""Words in front of an institution's kind that belong to its name."""

_I: Final = re.IGNORECASE


_CASED: Final = "(?-i:"
_CAPITAL: Final = re.compile(r"\\.|\(\?P|[A-ZÀ-Þ]")
_I_LETTERS: Final = str.maketrans({"\u0130": "i", "\u0131": "i", "\u017f": "s"})
_DIGIT: Final = re.compile(r"\d")


def lowered(text: str) -> str:
    """``text`` in lower case, each character in its place, and what `re.IGNORECASE` takes for an ASCII letter as one.

    >>> lowered("Dr. \u0130LSE")
    'dr. ilse'
    """
    return text.lower() if text.isascii() else text.translate(_I_LETTERS).lower()


def caseless(pattern: str) -> re.Pattern[str]:
    """A pattern that finds in `lowered` text what it would find with `re.IGNORECASE` in the text, much faster.

    It must not tell capitals from small letters anywhere, nor have a letter beyond Latin-1.
    """
    return re.compile(_CAPITAL.sub(lambda match: match[0].lower() if len(match[0]) == 1 else match[0], pattern))


class Seen:
    """A text as the patterns look at it.

    Attributes:
        text: as it is.
        low: the same, `lowered`; places in one are places in the other.
        digits: how many characters are digits.
    """

    __slots__ = ("digits", "low", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.low = lowered(text)
        self.digits = len(_DIGIT.findall(text))


class Form(NamedTuple):
    """What identifies by its form, and what a text without it can be told by: few texts need most of the patterns.

    Attributes:
        kind: of identifier.
        pattern: what to look for.
        digits: no text with fewer digits has it.
        parts: no text without one of them, in lower case, has it; empty where that cannot be said.
        is_cased: it is looked for in the text as it is; otherwise in lower case.
    """

    kind: str
    pattern: re.Pattern[str]
    digits: int = 0
    parts: tuple[str, ...] = ()
    is_cased: bool = False

    def spans(self, seen: Seen) -> list[tuple[int, int]]:
        """Where it stands in a text."""
        if seen.digits < self.digits:
            return []
        for part in self.parts:  # half the time of any()
            if part in seen.low:
                break
        else:
            if self.parts:
                return []
        return [match.span() for match in self.pattern.finditer(seen.text if self.is_cased else seen.low)]


def _form(kind: str, pattern: str, digits: int = 0, parts: str = "") -> Form:
    is_cased = _CASED in pattern
    made = re.compile(pattern, _I) if is_cased else caseless(pattern)
    return Form(kind, made, digits, tuple(parts.split()), is_cased)


STRUCTURED: Final = tuple(
    Form("STRUCTURED", re.compile(pattern, flags), digits, tuple(parts.split()), is_cased=True)
    for pattern, flags, digits, parts in (
        (r"[{\[]\s*[\"'][^\"']*[\"']\s*[:,]", 0, 0, "{ ["),  # JSON
        (r"<\?xml|<!DOCTYPE|<!--|</\w+\s*>|<\w+(\s[^<>]*)?/>|<\w+(\s+[\w:-]+\s*=\s*[\"'])", _I, 0, "<"),  # XML, HTML
        (r"(?<![A-Za-z0-9+/_=-])(?=[A-Za-z+/_-]*\d)(?=[a-z0-9+/_-]*[A-Z])"
         r"(?=[A-Z0-9+/_-]*[a-z])[A-Za-z0-9+/_-]{32,}={0,2}(?![A-Za-z0-9+/=])", 0, 1, ""),
        (r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{7,}={1,2}(?![A-Za-z0-9+/=])", 0, 0, "="),  # padded base64
        (r"(?<![\w])(?=[0-9a-f]*\d)(?:[0-9a-f]{2}){8,}(?![\w])", _I, 1, ""),  # hex digits
        (r"(?:\b[0-9a-f]{2}[ :-]){6,}[0-9a-f]{2}\b", _I, 0, ""),  # hex dump
        (r"%[0-9A-F]{2}.*%[0-9A-F]{2}|&#x?[0-9A-F]+;|[\\/]u[0-9a-f]{4}|\\x[0-9a-f]{2}|=[0-9A-F]{2}=[0-9A-F]{2}",
         _I, 0, "% &# \\ /u ="),
        (r"MSH\||PID\||\x0b|BEGIN:VCARD|-----BEGIN ", 0, 0, ""),  # HL7 version 2, vCard, PEM
    )
)  # fmt: skip
"""Text that is an encoding of something else: removed whole."""

SPACED: Final = re.compile(r"(?<!\w)[^\W\d_]([ ._*-]{1,2})[^\W\d_](?:\1[^\W\d_])+(?!\w)")
"""A word written with something between its letters."""

PATTERNS: Final = (
    Form("IDENTIFIER", SPACED),
    _form("CONTACT", r"(?<![\w:])(?:[0-9a-f]{1,4}:){4,}[0-9a-f]{1,4}(?![\w:])|(?<![\w:])[0-9a-f]{1,4}"
                     r"(?::[0-9a-f]{1,4})*::[0-9a-f:]+", parts=":"),
    _form("ADDRESS", r"(?<![\w.])[-+]?\d{1,3}\.\d{4,}\s*[,;]\s*[-+]?\d{1,3}\.\d{4,}(?![\w.])", 10, "."),
    _form("CONTACT", r"\((?:x|ext\.?|dw)\s?\d{3,6}\)|\bext\.?\s?\d{2,6}\b|(?<![\w.])[2-9]\d\d\.\d{4}(?![\w.]"
                     r"|\s*(?:mm|cm|ms|ml))", 2, "( ext ."),
    _form("NUMBER", r"\b(?=[A-Z0-9-]*\d)(?=[0-9-]*[A-Z])(?-i:[A-Z0-9]{3,5}(?:-[A-Z0-9]{3,5}){2,})\b|"
                    r"(?<![\w.-])\d{4,}-\d(?![\w.-])", 1, "-"),
    _form("CONTACT", r"\b(?:https?|ftps?|file|s3|sftp|smb|dicom|mailto|urn):[^\s<>\"]+|\bwww\.[^\s<>\"]+",
                     parts=": www."),
    _form("CONTACT", r"[\w.+%-]+\s?(?:@|\(at\)|\[at\])\s?[\w-]+(?:\.[\w-]+)*", parts="@ (at) [at]"),
    _form("CONTACT", r"(?<![\w.])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w.])|\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b",
                     parts=". :"),
    _form("CONTACT", r"\b[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:com|org|net|edu|gov|de|fr|ch|at|uk|info|local"
                     r"|lan)\b[\w/.?=&-]*", parts=".com .org .net .edu .gov .de .fr .ch .at .uk .info .local .lan"),
    _form("CONTACT", r"(?:\b[a-z]:\\|\\\\|(?<![\w/])/(?:home|users|mnt|data|var|tmp|opt|net"
                     r"|share)\b)[^\s\"<>|]*", parts="\\ /home /users /mnt /data /var /tmp /opt /net /share"),
    _form("NUMBER", r"(?<![\d.])\d+(?:\.\d+){4,}(?![\d])", 5, "."),
    _form("PERSON", r"\b(?:DOB|D\.O\.B|born|birth\s?date|date\s+of\s+birth|geb(?:oren)?|Geburtsdatum|née?|DDN"
                    r"|date\s+de\s+naissance)"
                    r"\b[.:]?\s*(?:on|am|le|:)?\s*\(?[\d.,/ -]*\d(?:[\s.-]*[^\W\d_]{3,9}\.?[\s,.-]*\d{2,4})?\)?", 1),
    _form("NUMBER", rf"\b(?:{_LABELLED}(?![^\W\d_]){_NUMBER_WORD}?|{_COUNTED}(?![^\W\d_])(?:{_NUMBER_WORD}"
                    rf"|\s*[:#]))"
                    rf"{_VALUE}(?<![.-])", 1),
    _form("NUMBER", r"#\s?[A-Z]{0,4}\d{4,}[\w-]*", 4, "#"),
    _form("NUMBER", r"\b(?:pts?|lot|batch|sn|nr)\.?[\s:]?\d{4,}(?!\d|\s*(?:s|ms|ml)\b)\w*|"
                    r"\bno\.\s?\d{3,}\w*", 3, "pt lot batch sn nr no."),
    Form("NUMBER", re.compile(r"\b[A-Z]{1,3}-?\d\d-\d{3,7}\b|\b[A-Z]{1,4}-\d{3,}-[A-Z]{1,4}\b|"
                              r"\b\d\d(?:-[A-Z]{1,3}-?|[A-Z]{1,3}-)\d{3,7}\b(?<!-(?:19|20)\d\d)"),
         3, ("-",), is_cased=True),  # of a specimen: S19-4471
    _form("NUMBER", rf"(?<![\w.,/-])(?!\d+[05]0[-/]\d+[05]0(?!\d))\d{{4,}}[-/]\d{{4,}}(?![\w.,/-]|{_UNIT})|"
                    r"(?<![\w.])(?!(?:\d[05] )+\d[05](?!\d))\d\d(?: \d\d){3,}(?![\w.])", 8),
    _form("CONTACT", rf"\b{_PHONE_LABEL}\b\.?[\s:#.-]*(?:nr|no|number"
                     rf"|nummer)?[\s:#.-]*\+?[\d(][\d\s()/.-]{{2,}}\d", 1),
    _form("CONTACT", r"(?<![\w.])(?:\+|00)\d{1,3}[\s./()-]*\d[\d\s()/.-]{5,}\d", 3, "+ 00"),
    _form("CONTACT", r"(?<![\w.])\(?\d{3,5}\)?[\s/.-]+\d{3,4}[\s.-]\d{3,5}(?![\w.])|"
                     r"(?<![\w.])\(\d{2,5}\)\s*\d[\d\s-]{4,}\d", 4),
    _form("CONTACT", r"(?<![\w.])0\d(?:[\s.]\d\d){4}(?!\d)|(?<![\w.])\d{3}-\d{4}(?![\w-])", 7),
    _form("NUMBER", r"(?<![\w.])\d{3}[- ]\d{2}[- ]\d{4}(?![\w.])|(?<![\w.])\d(?:[\s-]\d{2,4}){3,}(?![\w.])", 7),
    _form("NUMBER", r"(?<![\w.,/-])(?!\d+[05]0 \d+[05]0(?!\d))\d{3,4} \d{3,4}"
                    r"(?![\w.,/-])(?!\s*(?:mm|cm|ms|ml|mg|x\b|Hz|HU))", 6),
    _form("ADDRESS", rf"\b\d{{1,5}}[a-z]?,?\s+(?:[^\W\d_][\w.'\u2019-]*\s+){{1,4}}?{_STREET}\b",
                     1, "street road avenue lane drive boulevard terrace highway parkway alley"),
    _form("ADDRESS", rf"\b\d{{1,5}}[a-z]?,?\s+(?:(?-i:[A-ZÀ-Þ])[\w.'\u2019-]*\s+){{1,4}}?{_STREET_SHORT}\b\.?", 1),
    _form("ADDRESS", rf"(?-i:\b[A-ZÀ-Þ]){NAME_PART}\s+(?:street|road|avenue|boulevard|rd|blvd)\b\.?",
                     parts="street road avenue boulevard rd blvd"),
    _form("ADDRESS", rf"(?:{_STREET_DE})\s*\d{{1,4}}\s?[a-z]?\b",
                     1, "str weg gasse allee platz damm ufer ring chaussee steig laan gracht"),
    _form("ADDRESS", rf"\b(?:(?:\d{{1,4}}\s?(?:bis|ter)?,?\s+)?{_STREET_FR}|\d{{1,4}}\s?(?:bis"
                     rf"|ter)?,?\s+{_STREET_FR_COUNTED})"
                     rf"\s+(?:d[eu]s?\s+|de\s+la\s+|de\s+l['\u2019]\s*)?{NAME_PART}(?:\s+\d{{1,4}}\b)?"),
    _form("ADDRESS", rf"\b(?:lives?|living|resid(?:es?|ing|ent)|wohnt|wohnhaft|native|born|habite|domicilié"
                     rf"|domiciliée|demeurant)\s+"
                     rf"(?:in|at|of|à|au)\s+{NAME_PART}(?:[\s-]+(?-i:[A-ZÀ-Þ])[^\W\d_]+)?",
                     parts="live living resid wohn native born habit domicili demeurant"),
    _form("ADDRESS", rf"(?-i:\b[A-ZÀ-Þ]){NAME_PART},\s*(?-i:UK|USA|U\.S\.A?|Germany|France|Austria"
                     rf"|Switzerland|England|Scotland|Ireland|"
                     rf"Canada|Deutschland|Österreich|Schweiz|Suisse|Belgique|Belgium|[A-Z]{{2}} \d{{5}})"
                     rf"(?!\w)\.?", parts=","),
    _form("ADDRESS", rf"\b(?:ward|room|station|zimmer|bed|bay|chambre)\s+(?:{_COUNT_WORD}\b|"
                     rf"(?-i:[A-ZÀ-Þ])[^\W\d_]+\s+\d{{1,3}}\b)", parts="ward room station zimmer bed bay chambre"),
    _form("CONTACT", rf"\b{_PHONE_LABEL}\b[\s:.]*(?:{_COUNT_WORD}[\s,-]*){{3,}}|"
                     rf"(?:\b{_COUNT_WORD}[\s,-]+){{5,}}{_COUNT_WORD}\b"),
    _form("NUMBER", r"(?<![\w.])\d{1,3}(?:\.\d{3}){2,}(?:-\w)?(?!\w)", 7, "."),
    _form("NUMBER", r"\b(?:Case|Fall|Dossier|Auftrag|Patient|Pat|Subject|Proband|Cas)\s+\d{2,}\b(?!\s*(?:mm"
                    r"|cm|m\b|%|years?|y\b|Jahre|ans))", 2),
    _form("ADDRESS", r"\b\d{5}(?:-\d{4})?\s+[^\W\d_][\w.-]+|\b[A-Z]{2}\s+\d{5}(?:-\d{4})?\b"
                     r"|\b[A-Z]{1,2}\d[A-Z\d]?\s\d[A-Z]{2}\b", 2),
    _form("ADDRESS", rf"\b{_PLACE_LABEL}\b\.?[\s:#-]*(?:(?:no|nr|n°)\.?\s*)?(?:\d{{1,5}}[a-z]?"
                     rf"|[a-z]?\d{{1,4}})(?:[-/.]\d+)?\b", 1),
    _form("NUMBER", r"(?<![\w.,/-])[a-z]{0,3}\d{2,}-\d{3,}-\d{2,}[a-z]?(?![\w/-])", 7, "-"),
    _form("AGE", r"\b(?:9\d|1[0-4]\d)\s*[-\u2013]?\s*(?:y(?:ea)?rs?|y\.?\s?/?o|y|jahre?|jährige?[rsnm]?|j"
                 r"|ans?|años|anni)\b"
                 r"(?:\s*[-\u2013]?\s*(?:old|alt|d['\u2019]âge))?", 2),
    _form("AGE", rf"\b(?:ninety|(?:a |one )?hundred)(?:[\s-]*(?:and[\s-]+)?{_COUNT_WORD})?[\s-]*"
                 r"(?:y(?:ea)?rs?|y\.?\s?/?o)\b(?:[\s-]*(?:old|of\s+age))?|\b[a-zäöü]*(?:neunzig|hundert)[a-zäöü]*\s*(?:jahre?|jährige?[rsnm]?)?\b|"
                 r"\bquatre[\s-]vingt[\s-](?:dix|onze|douze|treize|quatorze|quinze|seize)(?:[\s-]\w+)?\s+ans\b",
                     parts="ninety hundred neunzig hundert quatre"),
    _form("AGE", r"\b(?:aged?|alter|âge|âgée?\s+de|im\s+alter\s+von)\s*[:=]?\s*(?:9\d|1[0-4]\d)\b", 2),
)  # fmt: skip
"""What is taken out as a whole, in the order it is looked for."""

TITLE: Final = caseless(rf"(?<![\w^]){_TITLE}(?![\w^])\.?[\s:.,_=-]*")
ROLE: Final = caseless(rf"\b{_ROLE}(?:\s*[:=]|\s+is\b|\s+name\b|\s+initials\b)*\s*[:=]?\s*")
BY: Final = caseless(rf"\b{_BY}\s*:?\s+")
DEGREE_END: Final = caseless(rf"\s{_DEGREE}(?!\w)")
"""What every match of `DEGREE` has, found much faster."""
DEGREE: Final = re.compile(rf"((?:{NAME_PART}[.,]?\s+){{0,2}}{NAME_PART}),?\s+{_DEGREE}(?![\w])\.?", _I)
ACTOR: Final = caseless(
    rf"\b({NAME_PART})\s+(?:has\s+|was\s+|is\s+)?(?:reviewed|read|dictated|performed|notified|called|informed"
    rf"|agrees?d?|requests|requested"
    r"|ordered|paged|aware|spoke|signed|reported|reports|consulted|recommends|discussed|examined|scanned"
    r"|approved)\b"
)  # fmt: skip
"""Somebody who does what only people do; a person where the first word is a name too."""
NAME_INITIAL: Final = re.compile(r"\b([A-ZÀ-Þ][^\W\d_]+),?\s+[A-Z]\.(?!\w)")
"""A family name with an initial behind it."""

_INITIALS: Final = re.compile(
    r"(?<![\w.])(?:[A-Z]\.[\s-]?){2,4}(?![\w])|(?<![\w.])[A-Z]{2,3}/[a-z]{2,3}(?![\w/])|\b[A-Z]\.\s?(?=[A-Z][a-z]{2,})"
    r"|(?<![\w/])/[A-Z]{2,3}/(?![\w/])"
    r"|\b[Bb][Yy] (?!(?:CT|MR|MRI|US|PET|XR|CTA|MRA|EUS|TTE|TEE|ECG|EKG|DXA|AI|CAD|GA|LMP|IR|NM|FDG|SPECT"
    r"|IV)\b)[A-Z]{2,3}\b"
)
INITIALS: Final = Form("PERSON", _INITIALS, parts=(".", "/", "by "), is_cased=True)
GENITIVE: Final = Form(
    "PERSON",
    re.compile(
        r"(?<![\w.])[A-ZÀ-Þ][^\W\d_]+['\u2019]s\b"
        r"(?!\s+(?:cyst|disease|syndrome|tests?|signs?|score|lines?|nodes?|ganz|view|sarcoma)\b)"
    ),
    parts=("'", "\u2019"),
    is_cased=True,
)
"""What is somebody's; not what is called after somebody."""
INITIAL_NAME: Final = Form("PERSON", re.compile(r"\b(?<!\.)[A-WYZ]\.? [A-ZÀ-Þ][^\W\d_]+\b"), is_cased=True)
"""A family name with an initial in front of it."""
NAME_COMMA: Final = re.compile(r"(?<!\w)([A-ZÀ-Þ][^\W\d_]+), ([A-ZÀ-Þ][^\W\d_]+)(?=\s*(?:$|[\r\n;(]))")
"""A name as lists have it: family name, given name."""
INSTITUTION: Final = caseless(rf"(?<![^\W_]){_INSTITUTION}(?![^\W_])")
"""The kind of an institution; its name stands before or behind."""
INSTITUTION_TAIL: Final = re.compile(
    rf"[,\s]*\b(?:of|at|in|de|du|des|d['\u2019]|la|le|für|am|an\s+der|im|zu|bei|der|di|St\.?|Saint|Sankt)\b\.?\s*"
    rf"(?:(?:the|la|le|les|der|den)\s+)?(?P<name>{NAME_PART}(?:[\s-]+(?-i:[A-ZÀ-Þ])[^\W\d_]+)?)", _I
)  # fmt: skip
NAME_PARTICLES: Final = words("van von vom bin ibn ter mac mc al el dos della ben abu")
"""Small words that go with the name behind them."""
SURE_PARTICLES: Final = words("bin ibn abu ben mc mac")
"""Those that are nothing else in front of a capital letter."""
SMALL_WORDS: Final = words("the of and in at to from des der die das du de la le les et und for fur pour")
