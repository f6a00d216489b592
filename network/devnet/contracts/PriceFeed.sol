// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// What a Chainlink aggregator answers, as its maker says: anybody may set it, on a chain where nothing is worth anything.
contract PriceFeed {
    uint8 public immutable decimals;
    string public description;
    int256 private answer;
    uint256 private updatedAt;
    uint80 private round;

    constructor(uint8 _decimals, string memory _description) {
        decimals = _decimals;
        description = _description;
    }

    function set(int256 _answer, uint256 _updatedAt) external {
        answer = _answer;
        updatedAt = _updatedAt;
        round += 1;
    }

    function latestRoundData()
        external
        view
        returns (uint80 roundId, int256 value, uint256 startedAt, uint256 writtenAt, uint80 answeredInRound)
    {
        return (round, answer, updatedAt, updatedAt, round);
    }
}
