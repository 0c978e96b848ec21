"""First names frequent in Germany, of all origins, without those that are German words as well.

Ernst, Rose, Wolf, Roman and August are left out. The list need not be complete: a pair that it
lacks is judged by what stands around it.
"""

from tasks.liga_relevance.words import word_set

FIRST_NAMES = word_set(
    """
    aaron abdul abdullah achim adam adama adelheid adrian adriana agata agathe agnes agnieszka
    ahmad ahmed ahmet aisha albert alberto albrecht aleksandar aleksander aleksandra aleksei
    aleksej alessandra alessandro alessia alexander alexandra alexei alexej aleyna alfons alfred
    alfredo ali alice alina alois alwin alwine amal ameli amelie amin amina aminata amir amira ana
    anas anastasia andi andré andre andrea andreas andreea andrej andrij andrzej angela angelika
    angelo anil anita anja anjali anke anna annabel annabell annabelle annalena anne annegret
    anneke annelie anneliese annemarie annett annette annika ansgar anthony antje antoine anton
    antonella antonia antonio aram arjun armin arne arno arnold arthur artur arturo astrid awet
    axel ayşe ayfer ayhan aylin ayman aynur ayse ayten azad aziz balthasar banu baran barbara
    bärbel bartosz bashar bassam bastian beata beate beatrice beatrix beatriz bekir ben benedikt
    benjamin benno benny berit bernadette bernd bernhard bertha berthold bertold bettina betty
    bianca bilal biljana biniam birgit bjarne björn bodo bogdan bojan boris branka brigitta
    brigitte brunhilde bruno bülent burak burcu burghard burkhard burkhardt camille canan cansu
    carina carl carla carlos carmelo carmen carola carolin caroline carsten caspar caterina
    cecilia celina celine cem cemal cemile cengiz ceren charles charlotte chiara chris christa
    christel christian christiane christina christine christof christoph christopher cigdem cindy
    claire clara clarissa claudia claudio claus clemens constanze cora cordula corinna corinne
    cornelia cristian cristina curt cynthia dagmar dalia dana danica daniel daniela danijela danny
    danuta darko david davide deepak dejan denise deniz dennis denys detlef detlev diana diego
    dieter diether dietmar dilan dilara dilek dimitri dimitrios dina dirk dmitri dmitrij dolores
    dominik dora doreen doris dorit dorothea dorothee dragan dragana dunja eberhard ebru eckart
    eckehard eckhard eckhart edda edelgard edeltraud edeltraut edgar edith edmund eduard edward
    egon ehrenfried eike ekrem elena eleni eleonora eleonore elfi elfriede elias elif elina elisa
    elisabeth elke ella ellen elmar elsa elvan elvira elwira emanuel emanuele emel emil emilia
    emilie emily emin emine emma emrah emre enes engelbert engin enno enrico enrique enzo erdal
    erdem eren ergün erhard eric erica erich erik erika erkan erna erol ersin erwin erwina esma
    esra esteban ester esther eugen eva eveline evelyn evi evren ewa ewald eylem fabian fabienne
    fabio fabrizio fadi fadime fahri faisal falk farid farida faruk fatih fatima fatma fatou
    fatoumata federica federico felicia felicitas felipe felix ferdinand ferhat fernanda fernando
    feven fikret filip filippo filiz finn firat florentine florian francesca francesco francisco
    frank franka franz franziska françois frauke fred freya frida fridolin frieda frieder
    friedericke friederieke friederike friedhelm friedrich fritz fynn gabi gabriel gabriele gaby
    gaetano galina gamze gebhard georg george georgios gerald geraldine gerd gerda gerhard gerhild
    gerlinde gernot gero gerrit gerti gertraud gertrud gertrude gesa gesche gesine geske ghassan
    gianluca gianni gilbert gina giorgio giorgos giovanna giovanni gisela gitta gitte giulia
    giuseppe gizem gökhan goran gottfried gotthard gregor greta grete grzegorz gudrun gudula guido
    guillaume gülay gülcan gülsen gunda gunnar gunter günter gunther günther guntram gustav habib
    hadi haider hakan halil halime halit halyna hamed hamid hamza hani hanife hanna hannah hanne
    hannelore hannes hanno hans hansjörg harald harry hartmut hartmuth hartwig harun hasan hassan
    hatice hatun haydar hedwig heidemarie heidi heidrun heike heiko heiner heinfried heinke
    heinrich heinz helena helene helga hella helmar helmut helmuth hélène hendrik henning henri
    henriette henrik henrike henry herbert heribert hermann hermine herta hertha hilde hildegard
    hildegund hilke hilla hiltrud hinnerk hisham holger horst hubert huda hugo hülya hüseyin
    hussain hussein ibrahim ida ignacio igor ilhan ilja ilka ilkay ilona ilse ilya imke ina ines
    inga inge ingeborg ingelore ingmar ingo ingobert ingrid inka insa ioana ioannis irene irina
    irmela irmgard irmtraud isabel isabell isabella isabelle ismail ismet isolde issa ivan ivana
    ivo iwona jack jacqueline jacques jadwiga jaime jakob jamal james jamila jan jana jane janette
    janin janina janine janka jannick jannik jannis jaroslaw jasmin jasna jason javad javier jean
    jeannette jelena jennifer jenny jens jeremy jerzy jessica jessika jette jim joachim joana
    joanna joao jobst jochem jochen joe joel joern johann johanna johannes john jolanta jonas
    jonathan jonte joost jörg jorge joris jörn josé jose josef josefa josefine joseph josephine
    joshua jost jovana juan juana judith jule julia julian juliana juliane julie julio julius
    jürgen jurij justin justus jutta kadir kai kamal kamil kamila karen karim karima karin karina
    karl karla karlheinz karlo karola karoline karsten kaspar katarina katarzyna katerina kateryna
    katharina kathi kathleen kathrin katja katrin kavita kelly kemal kenan kerem kerstin kevin
    khaled khalid kilian kimberly kira kirsten klara klaudia klaus klemens knut kofi konrad
    konstantin korbinian kordula kornelia kostas kristian kristiane kristin kristina krystyna
    krzysztof ksenia kübra kunibert kurt kwame laila lara larisa larissa lars lasse latifa laura
    laurent laurenz laurin layla lea leila lena leni lennart leo leon leonard leonardo leonhard
    leonie leopold levent levin leyla lia liane lidia lidija lienhard liesel lieselotte lili
    lilian liliane lilli lilly lina linda linh lisa ljudmila lore lorena lorenz lorenzo loretta
    lothar lotte louis louisa louise luca lucas lucia luciana lucie ludger ludmila ludwig ludwina
    luigi luis luisa luise lukas lutz lydia maciej madeleine magda magdalena maha mahdi mahir
    mahmoud mahmut maik maika maike maja majid maksim maksym malgorzata malik malin malte mamadou
    mandy manfred manuel manuela mara marc marcel marcela marco marcus marek margarete margarethe
    margit margitta margot margret margrit maria mariam mariama marianne marie mariele marietta
    marija marika marina mario marion marisa mariusz marko markus marleen marlen marlene marlies
    marliese marlis marta marten martha martin martina martine marwan mary maryam maryna massimo
    massoud mateusz mathias mathilda mathilde mathis matteo matthias mattis maurice mauricio
    maurizio max maxi maxim maximilian mechthild mechtild megan mehmet meike meinhard meinolf
    melanie melek meltem merle merlin meron mert merten merve meryem mesut metin mia micha michael
    michaela michail michelle miguel mihaela mihai mika mike mikhail mila milan milena milica
    milos minh miriam mirja mirjam mirjana mirko miroslav mladen mohamed mohammad mohammed mona
    monika monique moritz mounir mourad muhammad muhammed murat mustafa mustapha nabil nadia nadim
    nadin nadine nadja nancy nasser natalia natalie natalija natascha nathalie nawal nazan nebojsa
    necati necla necmi nele nenad nergis nermin neslihan nesrin nevin ngozi nick nicola nicolas
    nicole nihat nikita niklas nikola nikolai nikolaj nikolas nikolaus nikos nilgün nils nilüfer
    nina noah nora norbert norman nour nuray nurcan nuri nurten okan oksana oktay olaf ole oleg
    oleh oleksandr oleksandra olena olga oliver olivia omar omid onur orhan orlando ortrud osama
    oskar osman otmar ottfried ottilie ottmar otto oumar oxana özcan özge özgür özlem pablo paola
    paolo parisa pascal pasquale patricia patrick patrik paul paula pauline pawel pedro pelin
    petar peter petra philine philip philipp phillip phuong pia pierre pietro pinar piotr predrag
    priya quirin rafael rafik rahim rahul raimund rainer rajesh ralf ralph ramazan rami ramon
    ramona rana rania raphael rashid raúl raul ravi rebecca recep regina regine reiner reinhard
    reinhild reinhold renata renate rené resi reza ricarda ricardo riccardo richard rico rieke
    rima rita riza robert roberta roberto robin rocco roderich roger roland rolf romy ronald ronja
    ronny rosalia rosalinde rosemarie rosi rosina rosmarie roswitha rotraud ruben rüdiger rudolf
    rupert ruth ryan sabine sabri sabrina sahar said saida saif salih saliha salma salome
    salvatore samet sami samir samira samson samuel sandeep sandra sanjay sara sarah sascha saskia
    sebastian sedat selahattin selam selda selim selin selina selma semra senta sepp serap serdar
    sergei sergej sergey sergio serhij serkan sevda severin sevgi sevil sevim shirin sibel sibylle
    siegbert siegfried sieglinde siegmund siegrid siegward sigismund sigmar sigrid sigurd silja
    silke silvana silvia simon simona simone sina sinan slavica slobodan snezana soenke sofia
    solveig songül sonja sönke sophia sophie soraya sören stanislav stanislaw stavros stefan
    stefania stefanie stefano steffen steffi stella sten stephan stephanie stephen steve stina
    suat sükrü suleiman süleyman sunhild sunita susan susann susanna susanne susi svea sven svenja
    svetlana swantje swetlana sybille sylke sylvia sylvio tabea tade tadeusz tahir tamara tammo
    tania tanja tarek tarik tariq tatiana tatjana tayfun teresa teresia tesfay tessa tetiana thea
    thekla theo theodor theodoros theresa theresia thierry thilo thomas thorben thorsten till
    tillmann tilman tilmann tim timm timo timon tina titus tjark tjorven tobias tolga tom tomasz
    toni tony torben torge torsten traudl traugott traute trudi trutz tuan tuba tuncay turgut ubbo
    udo ufuk ugur ulf uli ulla ulli ulrich ulrik ulrike ümit umut undine urs ursel ursula urte
    uschi ute uwe vadim valentin valentina valentino valeria valerie vanessa vasilis vasyl veit
    vera verena veronika vesna veysel viktor viktoria vincent vincenzo vinzenz vitali vittorio
    viviane vivien vladimir volkan volker volkert volkhard volkmar volodymyr vroni wadim wael
    waldemar waleed walid walter waltraud waltraut wencke wendelin wenke werner wiard wibke wiebke
    wiktor wilfried wilhelm wilhelmine wilko willi william wilma winfrid winfried winfriede
    wladimir wojciech wolfgang wolfhard wolfhart wolfram wulf xaver xavier xenia yahya yakup
    yannic yannick yannis yara yasar yasemin yasmin yavuz yeliz yonas younes yousef youssef yulia
    yuliia yunus yuri yusuf yves yvette yvonne zafer zahra zainab zbigniew zdravko zehra zeki
    zeliha zeljka zeljko zeynep ziad zlatko zoe zofia zoran zuhal
    """
)
