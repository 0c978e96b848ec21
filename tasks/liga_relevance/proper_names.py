"""Names that a German news text can hold, and words that tell that a name follows.

First names are those frequent in Germany, of all origins, without the ones that are German words
as well (Ernst, Rose, Wolf, August). The lists need not be complete: what they lack goes unjudged.
"""

from tasks.liga_relevance.words import word_set

FIRST_NAMES = word_set(
    """
    aaron abdullah achim adam adrian agnes ahmad ahmed aisha alexander alexandra alfred ali
    alice alina amina amir andrea andreas andrej angela angelika anja anke anna annalena anne
    annegret anneliese annette anton antonia anton armin arne astrid axel aylin ayse barbara
    bastian beate ben benedikt benjamin bernd bernhard bertold bettina birgit björn boris
    brigitte bruno burkhard carina carl carla carmen carola carolin caroline carsten cem
    charlotte christa christel christian christiane christina christine christof christoph
    christopher claudia claus clemens cornelia corinna dagmar daniel daniela david denise dennis
    detlef diana dieter dietmar dirk dominik dorothea doris edeltraud eckhard edith eduard elena
    elfriede elias elif elisabeth elke ella ellen elsa emil emilia emily emine emma emre enrico
    eric erich erik erika erwin esra esther eugen eva evelyn fabian fatima fatma felix ferdinand
    finn florian frank franz franziska frauke fred friederike friedrich fritz gabriel gabriele
    georg gerd gerda gerhard gertrud gesine gisela gregor gudrun günter günther gustav hakan
    hannah hannelore hannes hans harald hartmut hasan hassan heidemarie heidi heike heiko heiner
    heinrich heinz helena helga helmut hendrik henning herbert heribert hermann hilde hildegard
    holger horst hubert hüseyin ibrahim ines inge ingeborg ingo ingrid irene irina irmgard
    isabel isabell isabella ivan jakob jan jana janina jasmin jens jeremy jessica joachim jochen
    johann johanna johannes jonas jörg jörn josef josefine joseph judith julia julian juliane
    jürgen jutta kai karin karina karl karla karlheinz karola karsten katharina kathrin katja
    katrin kemal kerstin kevin kirsten klara klaus konrad konstantin kristian kristina kristin
    kurt lara lars laura lea leila lena leni leo leon leonie lia lieselotte lilly lina linda
    lisa lorenz lothar louisa louise luca lucas ludwig luis luisa lukas lutz magdalena maike
    maja malte mandy manfred manuel manuela marc marcel marco marcus margarete margit margot
    maria marianne marie marina mario marion markus marlene marlies marta martha martin martina
    mathias mathilda matthias maximilian mehmet meike melanie mia michael michaela michelle
    miriam mohamed mohammad mohammed monika moritz murat mustafa nadine nadja nancy natalia
    natalie nele nicola nicole niklas nikolaus nils nina noah nora norbert olaf ole oleg olga
    oliver omar oskar osman otto pascal patricia patrick paul paula peter petra philipp pia
    rafael rainer ralf ralph ramona raphael rebecca regina regine reiner reinhard renate rené
    ricarda richard rita robert robin roland rolf ronald rosemarie rosi rudolf rüdiger
    ruth sabine sabrina salma sandra sara sarah saskia sebastian selin selma sigrid silke silvia
    simon simone sina sofia sonja sophia sophie stefan stefanie steffen stephan stephanie
    susanne svea sven svenja sybille sylvia tanja tarek tatjana thea thekla theo theodor theresa
    theresia thomas thorsten tim timo tina tobias tom torsten udo ulf uli ulla ulrich ulrike
    ursula ute uwe valentin valentina vanessa vera verena veronika viktor viktoria vincent
    volker volkmar waltraud waltraut walter werner wilfried wilhelm willi winfried wolfgang
    yannick yasemin yasmin yusuf yvonne zeynep
    """
)

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

ORGANISATIONS = (
    r"Stiftung|Verein|Verband|Landesverband|Kreisverband|Klinik|Klinikum|Krankenhaus|Universität"
    r"|Hochschule|Institut|Partei|Gewerkschaft|Firma|Kita|Kindergarten|Pflegeheim|Seniorenheim"
    r"|Altenheim|Haus|Bündnis|Initiative|Netzwerk|Fraktion|Bistum|Landkreis|Kreis|Stadt|Gemeinde"
    r"|Ortsteil|Stadtteil|Grundschule|Gesamtschule|Gymnasium|Träger|Werkstatt|Tierheim|Zeitung"
)
"""Nouns that the name of an organisation or a place follows."""

ASSOCIATIONS = {
    "AWO": ("awo", "arbeiterwohlfahrt"),
    "Caritas": ("caritas",),
    "Diakonie": ("diakon",),
    "DRK": ("drk", "rotes kreuz", "roten kreuz", "rote kreuz", "rotkreuz"),
    "Der Paritätische": ("paritätische", "parität"),
    "Jüdische Gemeinde": ("jüdische gemeinde", "jüdischen gemeinde", "jüdischer gemeinde"),
}
"""The Liga's associations with the ways to write them, in small letters."""

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
    SOS FAQ OK
    """
)
"""Known to any writer, or the task's own: no sign that something was invented."""
