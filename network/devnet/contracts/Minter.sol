// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

import "./Managed.sol";

/// Holds the ether of deposits, reserves and fees, and the bonded tokens.
contract Minter is Managed {
    event SetCurrentRewardTokens(uint256 currentMintableTokens, uint256 currentInflation);

    uint256 public constant inflation = 0;
    /// What one call of `reward` mints here, whatever was bonded.
    uint256 public constant currentMintableTokens = 1 ether;

    modifier onlyTrusted() {
        require(
            msg.sender == address(bondingManager())
                || msg.sender == controller.getContract(keccak256("TicketBroker")),
            "msg.sender not BondingManager or TicketBroker"
        );
        _;
    }

    constructor(address _controller) Managed(_controller) {}

    function depositETH() external payable whenSystemNotPaused onlyTrusted returns (bool) {
        return true;
    }

    function trustedWithdrawETH(address payable to, uint256 amount)
        external
        whenSystemNotPaused
        onlyTrusted
    {
        (bool sent,) = to.call{value: amount}("");
        require(sent, "ETH transfer failed");
    }

    function trustedTransferTokens(address to, uint256 amount) external onlyTrusted {
        token().transfer(to, amount);
    }

    function createReward() external onlyTrusted returns (uint256) {
        token().mint(address(this), currentMintableTokens);
        return currentMintableTokens;
    }

    function setCurrentRewardTokens() external {
        require(msg.sender == address(roundsManager()), "msg.sender not RoundsManager");
        emit SetCurrentRewardTokens(currentMintableTokens, inflation);
    }
}
