"""Names that a German news text can hold, and words that tell that a name follows.

The lists need not be complete: what they lack goes unjudged.
"""

from tasks.liga_relevance.words import word_set

TITLES = (
    r"(?:[A-ZÄÖÜ][a-zäöüß]+)?(?:[Mm]inister(?:s|in)?|[Kk]anzler(?:s|in)?|[Bb]ischof(?:s)?|[Bb]ischöfin"
    r"|[Ss]taatssekretär(?:s|in)?|[Bb]ürgermeister(?:s|in)?|[Pp]farrer(?:s|in)?|[Pp]ropst|[Pp]röpstin"
    r"|[Ll]andrats?|[Ll]andrätin|[Ss]tadträtin|[Dd]ezernent(?:en|in)?)"
    r"|(?:Ministerp|Bundesp|Bundestagsp|Landtagsp)räsident(?:en|in)?"
    r"|Herrn?|Frau|Dr\.|Prof\.|Professor(?:s|in)?|Senator(?:s|in)?|Prälat|Präses"
)
"""Before the name of a person, and of nothing else.

"Leiter Einkauf", "Sprecherin Pflege" and "Vorsitzender Richter" are not names.
"""

SPEECH = r"(?:sagt|sagte|so|meint|meinte|betont|betonte|erklärt|erklärte|erläutert|erläuterte)"
"""Verbs that the name of a speaker follows and no object."""

SAYS = (
    r"(?:(?:sag|mein|beton|klag|warn|mahn|forder|erklär|erläuter|ergänz|kritisier|resümier|schilder"
    r"|bilanzier|schimpf|lob)te?|berichtete?|findet|fand)"
)
"""Verbs of speech in the singular: the subject of one is a single speaker."""

ROLES = (
    r"[\wß-]{0,40}(?:(?:leiter|sprecher|geschäftsführer|direktor|präsident|referent|berater|betreuer"
    r"|erzieher|pfleger|lehrer|forscher|professor|sozialarbeiter|kämmerer|dezernent|mentor|vertreter"
    r"|manager|trainer|autor|koordinator|gründer|richter|bewohner|ökonom|journalist|aktivist|jurist"
    r"|geschäftsleiter|chef|rektor|inhaber|besitzer|helfer|mitarbeiter|patient|schüler|student)(?:s|in)?"
    r"|(?:vorsitzende|beauftragte|abgeordnete|vorstehende|angehörige|betroffene)[rn]?"
    r"|anwalt|anwältin|arzt|ärztin|vorstand|vorständin|experte|expertin|psychologe|psychologin"
    r"|landrat|stadtrat|rätin|schwester|pädagoge|pädagogin|politologe|politologin|soziologe"
    r"|soziologin|mutter|vater)"
)
"""Functions of a person, before or behind a name; to be searched for in any case."""

ORGANISATIONS = (
    r"Stiftung|Verein|Verband|Landesverband|Kreisverband|Klinik|Klinikum|Krankenhaus|Universität"
    r"|Hochschule|Institut|Partei|Gewerkschaft|Firma|Kita|Kindergarten|Pflegeheim|Seniorenheim"
    r"|Altenheim|Haus|Bündnis|Initiative|Netzwerk|Fraktion|Bistum|Landkreis|Kreis|Stadt|Gemeinde"
    r"|Ortsteil|Stadtteil|Grundschule|Gesamtschule|Gymnasium|Träger|Werkstatt|Tierheim|Zeitung"
)
"""Nouns that the name of an organisation or a place follows."""

ASSOCIATIONS = {
    "AWO": r"\bawos?\b|arbeiterwohlfahrt",
    "Caritas": r"caritas",
    "Diakonie": r"diakonie|diakonisch|(?-i:\bInnere[nr]? Mission\b)",
    "DRK": r"\bdrks?\b|rote[nrs]? kreuz(?!en?\b)|rotkreuz|\bred cross\b",
    "Der Paritätische": (
        r"\bdpwv\b|\bparit(?:ä|ae)tische[nrs]? (?:wohlfahrt|gesamt|landes|kreis)verb[aä]nd"
        r"|(?-i:\b(?:Parit(?:ä|ae)tische|PARITÄTISCHE))[nrs]?\b"
        r"(?! (?:mitbestimmung|besetzung|finanzierung|beteiligung|verteilung|kommission|gremi))"
    ),
    "Jüdische Gemeinde": r"\bj(?:ü|ue)dische[nr]? gemeinde",
    "ZWST": r"\bzwst\b|zentralwohlfahrtsstelle",
}
"""The Liga's associations, and the umbrella of one, with the ways to write them.

They are patterns to be searched for in any case. Where a word means something else as well
("paritätische Mitbestimmung", ein Diakon), the pattern leaves that out.
"""

PLACES = word_set(
    """
    Alsfeld Bad-Hersfeld Bensheim Biedenkopf Butzbach Büdingen Darmstadt Dieburg Dietzenbach
    Dillenburg Dreieich Erbach Eschwege Frankenberg Frankfurt Friedberg Fritzlar Fulda
    Gelnhausen Gießen Griesheim Groß-Gerau Hanau Heppenheim Herborn Hofgeismar Hofheim Homberg
    Hünfeld Idstein Kassel Kelkheim Korbach Lampertheim Langen Lauterbach Limburg Maintal
    Marburg Melsungen Michelstadt Mörfelden Neu-Isenburg Nidda Oberursel Offenbach Pfungstadt
    Rodgau Rotenburg Rüdesheim Rüsselsheim Schlüchtern Schwalmstadt Stadtallendorf Taunusstein
    Viernheim Weilburg Weiterstadt Wetzlar Wiesbaden Witzenhausen Wolfhagen Vogelsbergkreis
    Wetteraukreis Odenwaldkreis Hochtaunuskreis Schwalm-Eder-Kreis Main-Kinzig-Kreis
    Main-Taunus-Kreis Lahn-Dill-Kreis Werra-Meißner-Kreis Augsburg Berlin Bielefeld Bochum Bonn
    Braunschweig Bremen Chemnitz Dortmund Dresden Duisburg Düsseldorf Erfurt Freiburg Hamburg
    Hannover Heidelberg Karlsruhe Kiel Koblenz Köln Leipzig Lübeck Magdeburg Mainz Mannheim
    München Münster Nürnberg Potsdam Rostock Saarbrücken Schwerin Stuttgart Ulm Wuppertal
    Würzburg Bayern Brandenburg Niedersachsen Nordrhein-Westfalen Rheinland-Pfalz Saarland
    Sachsen Sachsen-Anhalt Schleswig-Holstein Thüringen Baden-Württemberg Mecklenburg-Vorpommern
    """
)
"""Towns and regions whose name is no German word. Hessen is what the task is about."""

KNOWN_ACRONYMS = word_set(
    """
    AK AK1 AK2 AK3 AK4 AK5 QAG SGB BTHG BGB GG StGB KiFöG HKJGB KJSG AWO DRK ARD ZDF EU BRD DDR
    USA UN UNO KI IT WG ÖPNV PKW LKW KFZ GmbH AG TV CSD NGO PDF TÜV BAföG ADHS HIV PTBS WC CO
    SOS FAQ OK DPWV ZWST
    """
)
"""Known to any writer, the task's own, or judged as an association."""

NO_NAMES = word_set(
    """
    anfang mitte ende prozent millionen milliarden tausend euro cent meter kilometer liter
    tonnen stunden tage wochen monate jahre land bund stadt kreis gemeinde landkreis hessen
    deutschland deutschlands hessens europa frauen männer kinder eltern familien menschen
    personal politik soziales gesundheit pflege bildung finanzen jugend arbeit integration
    familie senioren wohnen teilhabe migration inneres justiz kultur umwelt verkehr wirtschaft
    recht sport leitung verwaltung seite ort thema sicht liga verband verbände träger kita heim
    einkauf vertrieb marketing technik controlling recherche diakonie caritas polizei feuerwehr
    kirche opposition staat kommune kommunen rathaus landtag bundestag bundesrat stadtrat senat
    niemand jemand jedermann keiner mancher einer eine letzterer letztere ersterer erstere
    letzteres mutter vater oma opa mama papa tochter sohn bruder schwester onkel tante gott ja
    nein danke bitte halt stopp beispiel projekt programm aktion kampagne bereich abteilung
    gruppe stufe klasse phase punkt teil platz raum haus zimmer stück paar dutzend stand typ
    fach marke titel wort begriff name motto schwerpunkt experten fachleute betroffene
    """
)
"""Capitalised words that stand where a name can, and are none."""

NOUN_ENDINGS = (
    r"(?:ung|ungen|heit|keit|keiten|schaft|schaften|ion|ionen|tät|ium|ien|ment|ments|nis|nisse|tum"
    r"|ling|linge|ismus|enz|anz|zeug|wesen|recht|rechte|gesetz|gesetze|buch|plan|pläne|amt|ämter"
    r"|rat|räte|tag|hof|haus|häuser|heim|heime|werk|werke|kreis|kreise|land|bund|bank|kasse|gericht"
    r"|verein|vereine|verband|verbände|kammer|zentrum|zentren|institut|klinik|kliniken|kirche|stadt"
    r"|gemeinde|schule|schulen|kita|kitas|partei|fraktion|gruppe|gruppen|team|teams|initiative|liga"
    r"|presse|zeitung|dienst|dienste|stelle|stellen|büro|behörde|dezernat|senat|konzern|träger"
    r"|betreiber|polizei|wehr|justiz|politik|firma|hilfe|hilfen|pflege|mission|forum|netzwerk|jury"
    r"|komitee|ausschuss|union|akademie|leute|kraft|kräfte|geld|gelder|kosten|platz|plätze|arbeit"
    r"|bau|raum|räume|bereich|bereiche|projekt|projekte|programm|fonds|etat|haushalt|quote|zahl"
    r"|zahlen|kind|kinder|eltern|frau|frauen|mann|männer|person|personen|gast|gäste|opfer|krise|not"
    r"|schutz|bedarf|mangel|angebot|antrag|beitrag|auftrag|vertrag|tarif|lohn|streik|protest|halt"
    r"|meister|nde|nden|nder|gte|gten|gter|ndete|hörige|hörigen|liche|lichen|licher)"
)
"""How a German noun ends, or a name that is too seldom one."""
