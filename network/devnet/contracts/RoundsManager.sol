// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

import "./Managed.sol";

/// Counts rounds of blocks; each has to be initialised once by somebody.
contract RoundsManager is Managed {
    uint256 private constant PERCENT_DIVISOR = 1_000_000;

    event NewRound(uint256 indexed round, bytes32 blockHash);

    uint256 public roundLength;
    /// Over PERCENT_DIVISOR: the last part of a round, in which transcoders' parameters are fixed.
    uint256 public roundLockAmount;
    uint256 public lastInitializedRound;
    uint256 public lastRoundLengthUpdateRound;
    uint256 public lastRoundLengthUpdateStartBlock;
    mapping(uint256 => bytes32) private hashes;

    constructor(address _controller, uint256 _roundLength, uint256 _roundLockAmount)
        Managed(_controller)
    {
        require(_roundLength > 0, "round length cannot be 0");
        roundLength = _roundLength;
        roundLockAmount = _roundLockAmount;
        lastRoundLengthUpdateRound = 1;
        lastRoundLengthUpdateStartBlock = block.number;
    }

    function setRoundLength(uint256 _roundLength) external onlyControllerOwner {
        require(_roundLength > 0, "round length cannot be 0");
        uint256 round = currentRound();
        uint256 startBlock = currentRoundStartBlock();
        roundLength = _roundLength;
        lastRoundLengthUpdateRound = round;
        lastRoundLengthUpdateStartBlock = startBlock;
        emit ParameterUpdate("roundLength");
    }

    function setRoundLockAmount(uint256 _roundLockAmount) external onlyControllerOwner {
        require(_roundLockAmount <= PERCENT_DIVISOR, "round lock amount must be a valid percentage");
        roundLockAmount = _roundLockAmount;
        emit ParameterUpdate("roundLockAmount");
    }

    /// For tests only: the chain that this stands for has rounds whose hash was stored as zero.
    function setBlockHashForRound(uint256 round, bytes32 hash) external onlyControllerOwner {
        hashes[round] = hash;
    }

    function initializeRound() external whenSystemNotPaused {
        uint256 round = currentRound();
        require(lastInitializedRound < round, "round already initialized");
        lastInitializedRound = round;
        bytes32 hash = blockHash(blockNum() - 1);
        hashes[round] = hash;
        bondingManager().setCurrentRoundTotalActiveStake();
        minter().setCurrentRewardTokens();
        emit NewRound(round, hash);
    }

    function blockNum() public view returns (uint256) {
        return block.number;
    }

    function blockHash(uint256 number) public view returns (bytes32) {
        require(number < blockNum(), "can only retrieve past block hashes");
        require(blockNum() < 256 || number >= blockNum() - 256, "can only retrieve hashes for last 256 blocks");
        return blockhash(number);
    }

    function blockHashForRound(uint256 round) external view returns (bytes32) {
        return hashes[round];
    }

    function currentRound() public view returns (uint256) {
        return lastRoundLengthUpdateRound
            + (blockNum() - lastRoundLengthUpdateStartBlock) / roundLength;
    }

    function currentRoundStartBlock() public view returns (uint256) {
        return lastRoundLengthUpdateStartBlock
            + (currentRound() - lastRoundLengthUpdateRound) * roundLength;
    }

    function currentRoundInitialized() external view returns (bool) {
        return lastInitializedRound == currentRound();
    }

    function currentRoundLocked() external view returns (bool) {
        uint256 locked = roundLength * roundLockAmount / PERCENT_DIVISOR;
        return blockNum() - currentRoundStartBlock() >= roundLength - locked;
    }
}
