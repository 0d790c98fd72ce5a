package blockdevtest

const RaceEnabled = raceEnabled
