"""Language codes (BCP 47): two letters of ISO 639-1 if the language has such a code, else three of ISO 639-3."""

from __future__ import annotations

import re

TAG = re.compile(r"([A-Za-z]{2,3})((?:[-_][A-Za-z0-9]{1,8})*)")

# ISO 639-1 code, ISO 639-2 and 639-3 codes, English names.
_TABLE = """
aa aar Afar;ab abk Abkhazian;ae ave Avestan;af afr Afrikaans;ak aka Akan;am amh Amharic;an arg Aragonese
ar ara,arb Arabic;as asm Assamese;av ava Avaric;ay aym Aymara;az aze,azj Azerbaijani;ba bak Bashkir
be bel Belarusian;bg bul Bulgarian;bi bis Bislama;bm bam Bambara;bn ben Bengali,Bangla;bo bod,tib Tibetan
br bre Breton;bs bos Bosnian;ca cat Catalan,Valencian;ce che Chechen;ch cha Chamorro;co cos Corsican;cr cre Cree
cs ces,cze Czech;cu chu Church Slavic;cv chv Chuvash;cy cym,wel Welsh;da dan Danish;de deu,ger German
dv div Dhivehi,Divehi,Maldivian;dz dzo Dzongkha;ee ewe Ewe;el ell,gre Greek;en eng English;eo epo Esperanto
es spa Spanish,Castilian;et est,ekk Estonian;eu eus,baq Basque;fa fas,per,pes Persian,Farsi;ff ful Fulah
fi fin Finnish;fj fij Fijian;fo fao Faroese;fr fra,fre French;fy fry Western Frisian,Frisian;ga gle Irish
gd gla Scottish Gaelic,Gaelic;gl glg Galician;gn grn Guarani;gu guj Gujarati;gv glv Manx;ha hau Hausa
he heb Hebrew;hi hin Hindi;ho hmo Hiri Motu;hr hrv Croatian;ht hat Haitian Creole,Haitian;hu hun Hungarian
hy hye,arm Armenian;hz her Herero;ia ina Interlingua;id ind Indonesian;ie ile Interlingue;ig ibo Igbo
ii iii Sichuan Yi;ik ipk Inupiaq;io ido Ido;is isl,ice Icelandic;it ita Italian;iu iku Inuktitut;ja jpn Japanese
jv jav Javanese;ka kat,geo Georgian;kg kon Kongo;ki kik Kikuyu;kj kua Kuanyama;kk kaz Kazakh;kl kal Kalaallisut
km khm Khmer;kn kan Kannada;ko kor Korean;kr kau Kanuri;ks kas Kashmiri;ku kur Kurdish;kv kom Komi;kw cor Cornish
ky kir Kyrgyz,Kirghiz;la lat Latin;lb ltz Luxembourgish,Letzeburgesch
lg lug Ganda,Luganda;li lim Limburgish;ln lin Lingala
lo lao Lao;lt lit Lithuanian;lu lub Luba-Katanga;lv lav,lvs Latvian;mg mlg,plt Malagasy;mh mah Marshallese
mi mri,mao Maori,Māori;mk mkd,mac Macedonian;ml mal Malayalam;mn mon,khk Mongolian;mr mar Marathi
ms msa,may,zsm Malay;mt mlt Maltese;my mya,bur Burmese,Myanmar;na nau Nauru;nb nob Norwegian Bokmål,Bokmål
nd nde North Ndebele;ne nep,npi Nepali;ng ndo Ndonga;nl nld,dut Dutch,Flemish;nn nno Norwegian Nynorsk,Nynorsk
no nor Norwegian;nr nbl South Ndebele;nv nav Navajo;ny nya Chichewa,Nyanja;oc oci Occitan;oj oji Ojibwa;om orm Oromo
or ori,ory Odia,Oriya;os oss Ossetic;pa pan Punjabi,Panjabi;pi pli Pali;pl pol Polish;ps pus,pbt Pashto
pt por Portuguese;qu que Quechua;rm roh Romansh;rn run Rundi;ro ron,rum Romanian,Moldavian,Moldovan;ru rus Russian
rw kin Kinyarwanda;sa san Sanskrit;sc srd Sardinian;sd snd Sindhi;se sme Northern Sami;sg sag Sango
si sin Sinhala,Sinhalese;sk slk,slo Slovak;sl slv Slovenian,Slovene;sm smo Samoan;sn sna Shona;so som Somali
sq sqi,alb,als Albanian;sr srp Serbian;ss ssw Swati;st sot Sotho;su sun Sundanese;sv swe Swedish;sw swa,swh Swahili
ta tam Tamil;te tel Telugu;tg tgk Tajik;th tha Thai;ti tir Tigrinya;tk tuk Turkmen;tl tgl Tagalog;tn tsn Tswana
to ton Tongan;tr tur Turkish;ts tso Tsonga;tt tat Tatar;tw twi Twi;ty tah Tahitian;ug uig Uyghur;uk ukr Ukrainian
ur urd Urdu;uz uzb,uzn Uzbek;ve ven Venda;vi vie Vietnamese;vo vol Volapük;wa wln Walloon;wo wol Wolof;xh xho Xhosa
yi yid,ydd Yiddish;yo yor Yoruba;za zha Zhuang;zh zho,chi,cmn Chinese,Mandarin,Mandarin Chinese;zu zul Zulu
"""
_LONGER, _NAMES = dict[str, str](), {"cantonese": "yue", "filipino": "fil", "hawaiian": "haw"}
for _line in _TABLE.strip().replace("\n", ";").split(";"):
    _code, _threes, _names = _line.split(" ", 2)
    _LONGER |= dict.fromkeys(_threes.split(","), _code)
    _NAMES |= dict.fromkeys(_names.lower().split(","), _code)


def code_of(language: str) -> str | None:
    """Return a language's code in the usual case, or None if the text is neither a code nor an English name.

    >>> [code_of(language) for language in ("EN-us", "eng", "English", "zh_hans", "double Dutch")]
    ['en-US', 'en', 'en', 'zh-Hans', None]
    """
    if known := _NAMES.get(language.lower()):
        return known
    if not (parts := TAG.fullmatch(language)):
        return None
    first, rest = parts[1].lower(), parts[2].replace("_", "-").lower()[1:]
    cased = [_cased(part) for part in rest.split("-") if part]
    return "-".join([_LONGER.get(first, first), *cased])


def _cased(part: str) -> str:
    """Return a subtag in the usual case: scripts as `Hans`, regions as `US`."""
    return part.title() if len(part) == 4 and part.isalpha() else part.upper() if len(part) == 2 else part
