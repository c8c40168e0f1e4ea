# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.training.words import load_words, prompts, read_words, word_lists
from spike_perception.training.words.templates import FOR_LIST, TEMPLATES, load_templates
from spike_perception.zero_shot.bank import WordBank
from spike_perception.zero_shot.folding import fold
from spike_perception.zero_shot.hierarchy import Hierarchy
from spike_perception.zero_shot.names import normalised
from spike_perception.zero_shot.pack import VocabularyPack

COCO = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear,
zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball,
kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup,
fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut,
cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush"""
CIFAR_10 = "airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck"
CIFAR_100 = """apple, aquarium_fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl,
boy, bridge, bus, butterfly, camel, can, castle, caterpillar, cattle, chair, chimpanzee, clock,
cloud, cockroach, couch, crab, crocodile, cup, dinosaur, dolphin, elephant, flatfish, forest, fox,
girl, hamster, house, kangaroo, keyboard, lamp, lawn_mower, leopard, lion, lizard, lobster, man,
maple_tree, motorcycle, mountain, mouse, mushroom, oak_tree, orange, orchid, otter, palm_tree, pear,
pickup_truck, pine_tree, plain, plate, poppy, porcupine, possum, rabbit, raccoon, ray, road, rocket,
rose, sea, seal, shark, shrew, skunk, skyscraper, snail, snake, spider, squirrel, streetcar,
sunflower, sweet_pepper, table, tank, telephone, television, tiger, tractor, train, trout, tulip,
turtle, wardrobe, whale, willow_tree, wolf, woman, worm"""
FASHION_MNIST = "T-shirt, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
MODELNET40 = """airplane, bathtub, bed, bench, bookshelf, bottle, bowl, car, chair, cone, cup,
curtain, desk, door, dresser, flower_pot, glass_box, guitar, keyboard, lamp, laptop, mantel,
monitor, night_stand, person, piano, plant, radio, range_hood, sink, sofa, stairs, stool, table,
tent, toilet, tv_stand, vase, wardrobe, xbox"""
# The names that say a view (car_side, cougar_face, Faces_easy, ...) by what is seen.
CALTECH_101 = """accordion, airplanes, anchor, ant, barrel, bass, beaver, binocular, bonsai, brain,
brontosaurus, buddha, butterfly, camera, cannon, car, ceiling_fan, cellphone, chair, chandelier,
cougar, crab, crayfish, crocodile, cup, dalmatian, dollar_bill, dolphin, dragonfly, electric_guitar,
elephant, emu, euphonium, ewer, Faces, ferry, flamingo, garfield, gerenuk, gramophone, grand_piano,
hawksbill, headphone, hedgehog, helicopter, ibis, inline_skate, joshua_tree, kangaroo, ketch, lamp,
laptop, Leopards, llama, lobster, lotus, mandolin, mayfly, menorah, metronome, minaret, Motorbikes,
nautilus, octopus, okapi, pagoda, panda, pigeon, pizza, platypus, pyramid, revolver, rhino, rooster,
saxophone, schooner, scissors, scorpion, sea_horse, snoopy, soccer_ball, stapler, starfish,
stegosaurus, stop_sign, strawberry, sunflower, tick, trilobite, umbrella, watch, water_lily,
wheelchair, wild_cat, windsor_chair, wrench, yin_yang"""
TINY_IMAGENET = """
Egyptian cat, reel, volleyball, rocking chair, lemon, bullfrog, basketball, cliff, espresso,
plunger, parking meter, German shepherd, dining table, monarch, brown bear, school bus, pizza,
guinea pig, umbrella, organ, oboe, maypole, goldfish, potpie, hourglass, seashore, computer
keyboard, Arabian camel, ice cream, nail, space heater, cardigan, baboon, snail, coral reef,
albatross, spider web, sea cucumber, backpack, Labrador retriever, pretzel, king penguin, sulphur
butterfly, tarantula, lesser panda, pop bottle, banana, sock, cockroach, projectile, beer bottle,
mantis, freight car, guacamole, remote control, European fire salamander, lakeside, chimpanzee,
pay-phone, fur coat, alp, lampshade, torch, abacus, moving van, barrel, tabby, goose, koala, bullet
train, CD player, teapot, birdhouse, gazelle, academic gown, tractor, ladybug, miniskirt, golden
retriever, triumphal arch, cannon, neck brace, sombrero, gasmask, candle, desk, frying pan, bee,
dam, spiny lobster, police van, iPod, punching bag, beacon, jellyfish, wok, potter's wheel, sandal,
pill bottle, butcher shop, slug, hog, cougar, crane, vestment, dragonfly, cash machine, mushroom,
jinrikisha, water tower, chest, snorkel, sunglasses, fly, limousine, black stork, dugong, sports
car, water jug, suspension bridge, ox, ice lolly, turnstile, Christmas stocking, broom, scorpion,
wooden spoon, picket fence, rugby ball, sewing machine, steel arch bridge, Persian cat,
refrigerator, barn, apron, Yorkshire terrier, swimming trunks, stopwatch, lawn mower, thatch,
fountain, black widow, bikini, plate, teddy, barbershop, confectionery, beach wagon, scoreboard,
orange, flagpole, American lobster, trolleybus, drumstick, dumbbell, brass, bow tie, convertible,
bighorn, orangutan, American alligator, centipede, syringe, go-kart, brain coral, sea slug, cliff
dwelling, mashed potato, viaduct, military uniform, pomegranate, chain, kimono, comic book,
trilobite, bison, pole, boa constrictor, poncho, bathtub, grasshopper, walking stick, Chihuahua,
tailed frog, lion, altar, obelisk, beaker, bell pepper, bannister, bucket, magnetic compass, meat
loaf, gondola, standard poodle, acorn, lifeboat, binoculars, cauliflower, African elephant"""
SETS = {
    "COCO": COCO,
    "CIFAR-10": CIFAR_10,
    "CIFAR-100": CIFAR_100,
    "Fashion-MNIST": FASHION_MNIST,
    "ModelNet40": MODELNET40,
    "Caltech-101": CALTECH_101,
    "Tiny-ImageNet": TINY_IMAGENET,
}


def names_of(text: str) -> list[str]:
    return [each.strip() for each in text.replace("\n", " ").split(",")]


@pytest.fixture(scope="module")
def bank() -> WordBank:
    """The shipped bank with random rows: names and aliases are real."""
    words = load_words("bank")
    rng = np.random.default_rng(0)
    rows = fold(list(rng.standard_normal((len(words.names), 8))))
    return WordBank.of(words.names, rows, "0" * 64, aliases=words.aliases)


def test_the_package_ships_its_lists():
    assert set(word_lists()) == {"bank", "coco", "driving", "everyday", "indoor", "modelnet40"}
    assert load_words("coco").names == tuple(names_of(COCO))
    assert 60 <= len(load_words("indoor").names) <= 110
    assert 40 <= len(load_words("driving").names) <= 80
    assert 4000 <= len(load_words("bank").names) <= 6000


def test_a_word_of_the_bank_means_one_noun():
    entries = load_words("bank").entries
    words = [normalised(word) for each in entries for word in (each.name, *each.aliases)]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("name", SETS)
def test_the_bank_knows_the_classes_of(name, bank):
    missing = []
    for word in names_of(SETS[name]):
        try:
            bank.find(word)
        except InputError as error:
            missing.append(str(error))
    assert not missing


@pytest.mark.parametrize("name", ["coco", "indoor", "driving", "everyday"])
def test_the_bank_knows_every_list(name, bank):
    words = load_words(name)
    for entry in (*words.entries, *words.headings):
        assert bank.find(entry.name) >= 0


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("automobile", "car"),
        ("aeroplane", "airplane"),
        ("plane", "airplane"),
        ("lorry", "truck"),
        ("mobile phone", "smartphone"),
        ("sofa", "couch"),
        ("trainers", "sneaker"),
        ("pavement", "sidewalk"),
        ("tyres", "tire"),
        ("rubbish bin", "trash can"),
        ("aubergine", "eggplant"),
    ],
)
def test_british_and_american_words(word, other, bank):
    assert bank.find(word) == bank.find(other)


@pytest.mark.parametrize("name", ["coco", "indoor", "driving"])
def test_lists_make_packs_with_a_hierarchy(name):
    words = load_words(name)
    nodes, parents = words.tree()
    tree = Hierarchy.of(parents)
    assert not tree.flat
    assert nodes[: len(words.names)] == words.entries
    dog = words.names.index("dog")
    assert nodes[parents[dog]].name == "animal"
    rows = fold(list(np.random.default_rng(1).standard_normal((len(nodes), 16))))
    pack = VocabularyPack.of([each.name for each in nodes], rows, "0" * 64, parents=parents)
    assert pack.hierarchy.parents == parents


def test_a_list_of_ones_own(tmp_path: Path):
    path = tmp_path / "own.txt"
    path.write_text("# tools\n\n[tool]\nhammer | mallet, sledge\n[hammer]\nclaw hammer\n[]\ncat\n")
    words = load_words(path)
    assert words.names == ("hammer", "claw hammer", "cat")
    assert words.aliases == {"hammer": ("mallet", "sledge")}
    nodes, parents = words.tree()
    assert [each.name for each in nodes] == ["hammer", "claw hammer", "cat", "tool"]
    assert parents == (3, 0, -1, -1)


@pytest.mark.parametrize(
    ("text", "reason", "where"),
    [
        ("cat\nCat", "duplicate_name", "own.txt"),
        ("cat\ndog | hound, Hound", "duplicate_name", "line 2"),
        ("cat | ", "bad_name", "line 1"),
        ("| dog", "bad_name", "line 1"),
        ("x" * 200, "bad_name", "line 1"),
        ("[a\x07]", "bad_name", "line 1"),
        ("[cat]\nCat", "duplicate_name", "own.txt"),
        (b"\xff\xfe", "words_unreadable", "own.txt"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, text, reason, where):
    path = tmp_path / "own.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=where) as refused:
        read_words(path)
    assert refused.value.reason == reason


def test_unknown_lists_and_templates():
    with pytest.raises(InputError, match="coco, driving") as refused:
        load_words("cocoa")
    assert refused.value.reason == "unknown_words"
    with pytest.raises(InputError, match="low_resolution"):
        load_templates("none")


def test_templates_are_distinct_and_hold_the_name():
    for templates in TEMPLATES.values():
        assert len(set(templates)) == len(templates) <= 20
        assert all(each.count("{name}") == 1 for each in templates)
    assert set(FOR_LIST) <= set(word_lists())
    assert set(FOR_LIST.values()) <= set(TEMPLATES)


def test_prompts_have_the_right_article():
    assert prompts("apple", ("a photo of a {name}",)) == ["a photo of an apple"]
    assert prompts(["car", "automobile"], ("a {name}",)) == ["a car", "an automobile"]
    filled = prompts(["unicycle", "umbrella", "Egyptian cat", "European fox", "urn"], ("a {name}",))
    assert [each.split()[0] for each in filled] == ["a", "an", "an", "a", "an"]
    assert prompts("dog", ("Panda {name}",)) == ["Panda dog"]
